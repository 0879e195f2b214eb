"""Table of queued deliveries and dead letters.

A delivery's id contains the stream offset of its message, so that a page that is read again after a crash queues no
delivery twice.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Index, Text, bindparam, case, func, literal, null, select, update

from birthmark.message_routing.delivery_model import QueuedDelivery
from birthmark.store import insert, partial_index, statement
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, remove

PORTION, LANES = 64, 256
"""Number of deliveries per partition, and of partitions, read at once."""
WAITING = RowMapper(QueuedDelivery)
letters = WAITING.table("routing_letters", "id", sealed=("address",))  # a header may contain a token
_ALIVE = letters.c.dead_at.is_(None)
_DEAD = letters.c.dead_at.is_not(None)
Index("routing_letters_lane", letters.c.lane, letters.c.id)
partial_index("routing_letters_due", letters.c.due_at, condition=_ALIVE)

ADD = insert(letters, ignore_existing=True)
DUE_LANES = statement(
    select(letters.c.lane)
    .distinct()
    .where(_ALIVE, letters.c.due_at <= bindparam("now"), letters.c.lane > bindparam("after"))
    .order_by(letters.c.lane)
    .limit(LANES)
)
DUE = statement(
    select(letters)
    .where(letters.c.lane == bindparam("lane"), _ALIVE, letters.c.due_at <= bindparam("now"))
    .order_by(letters.c.id)
    .limit(PORTION)
)
DELETE = remove(letters, "id")
LATER = change(letters, ("tries", "due_at", "dead_at", "problem"), "id", "tries")
_BYTES = func.length(letters.c.body) + func.length(letters.c.origin)
_OF_RULE = (letters.c.lane >= bindparam("first"), letters.c.lane < bindparam("last"))
COUNTS = statement(
    select(
        letters.c.lane,
        func.count().label("count"),
        func.count(letters.c.dead_at).label("dead"),
        func.coalesce(func.sum(case((_ALIVE, _BYTES), else_=0)), 0).label("bytes"),
        func.coalesce(func.sum(case((_DEAD, _BYTES), else_=0)), 0).label("dead_bytes"),
    )
    .where(*_OF_RULE)
    .group_by(letters.c.lane)
)
DEAD_OF = statement(
    select(letters)
    .where(*_OF_RULE, _DEAD, letters.c.id > bindparam("after"))
    .order_by(letters.c.id)
    .limit(bindparam("limit"))
)
DELETE_OF = remove(letters, *_OF_RULE)
REVIVE = statement(
    update(letters)
    .where(*_OF_RULE, _DEAD)
    .values(dead_at=null(), tries=literal(0), due_at=bindparam("due_at"), problem=literal("", Text))
)
OLDEST_DEAD = statement(
    select(letters.c.id, _BYTES.label("bytes"))
    .where(letters.c.lane == bindparam("lane"), _DEAD)
    .order_by(letters.c.id)
    .limit(bindparam("limit"))
)
ONE = find(letters)


ALL_RULES: Mapping[str, str] = {"first": "", "last": "\U0010ffff"}


def of_rule(rule: str) -> dict[str, Any]:
    """Return the parameters for all partitions of a rule: no rule name contains `/`, and `0` follows `/`."""
    return {"first": f"{rule}/", "last": f"{rule}0"}
