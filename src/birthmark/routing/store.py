"""Letters that wait for their turn, for another try, or are put aside.

A letter's id says which message of the stream it is of, so that a page that is read again after a crash queues nothing
twice.
"""

from typing import Any

from sqlalchemy import Index, bindparam, func, literal_column, null, or_, select, update

from birthmark.routing.letters import Waiting
from birthmark.store import insert, statement
from birthmark.store.keyed import change, find, remove
from birthmark.store.records import Records

PORTION = 64
WAITING = Records(Waiting)
letters = WAITING.table("routing_letters", "id")
_ALIVE = letters.c.dead_at.is_(None)
_DEAD = letters.c.dead_at.is_not(None)
Index("routing_letters_lane", letters.c.lane, letters.c.id)
Index("routing_letters_due", letters.c.due_at, sqlite_where=_ALIVE, postgresql_where=_ALIVE)

ADD = insert(letters, ignore_existing=True)
DUE_LANES = statement(select(letters.c.lane).distinct().where(_ALIVE, letters.c.due_at <= bindparam("now")).limit(256))
DUE = statement(
    select(letters)
    .where(letters.c.lane == bindparam("lane"), _ALIVE, letters.c.due_at <= bindparam("now"))
    .order_by(letters.c.id)
    .limit(PORTION)
)
DELETE = remove(letters, "id")
LATER = change(letters, ("tries", "due_at", "dead_at", "problem"), "id", "tries")
COUNTS = statement(
    select(
        letters.c.lane,
        func.count().label("count"),
        func.count(letters.c.dead_at).label("dead"),
        func.coalesce(func.sum(func.length(letters.c.body)), 0).label("bytes"),
    )
    .where(or_(bindparam("rule") == "", letters.c.lane.like(bindparam("rule") + "/%")))
    .group_by(letters.c.lane)
)
_OF_RULE = (letters.c.lane >= bindparam("first"), letters.c.lane < bindparam("last"))
DEAD_OF = statement(
    select(letters)
    .where(*_OF_RULE, _DEAD, letters.c.id > bindparam("after"))
    .order_by(letters.c.id)
    .limit(bindparam("limit"))
)
DELETE_OF = remove(letters, *_OF_RULE)
_ANEW = {
    "dead_at": null(),
    "tries": literal_column("0"),
    "due_at": bindparam("due_at"),
    "problem": literal_column("''"),
}
REVIVE = statement(update(letters).where(*_OF_RULE, _DEAD).values(_ANEW))
OLDEST_DEAD = statement(
    select(letters.c.id)
    .where(letters.c.lane == bindparam("lane"), _DEAD)
    .order_by(letters.c.id)
    .limit(bindparam("limit"))
)
ONE = find(letters)


def of_rule(rule: str) -> dict[str, Any]:
    """Return the parameters for all lanes of a rule: `/` is in no rule's name, and `0` follows it."""
    return {"first": f"{rule}/", "last": f"{rule}0"}
