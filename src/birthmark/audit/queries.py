"""Audit log queries, newest first: a page of the rows of all chains by actor, action, and subject.

A page uses the index of one filter and checks the other filters row by row, at most `MAX_LOOKED` rows. It may therefore
be short although another page follows. Nothing is verified here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Text, bindparam, select, tuple_
from sqlalchemy import text as sql

from birthmark.store import Statement, from_micros, statement, to_micros
from birthmark.store.core_tables import audit
from birthmark.store.database import DatabaseReader, Row
from birthmark.store.pagination import Page, PageInvalidError

MAX_LOOKED = 2000
_EACH = 500
_DIGITS = 18
_ORDER = tuple(audit.c[name] for name in ("at", "chain", "seq"))
_BEFORE = tuple_(
    bindparam("before_at", type_=BigInteger), bindparam("chain", type_=Text), bindparam("seq", type_=BigInteger)
)


def _page(*named: str) -> Statement:
    columns = (audit.c[name] for name in ("chain", "seq", "at", "actor", "action", "subject", "detail"))
    wanted = (audit.c[name] == bindparam(name) for name in named)
    page = select(*columns).where(*wanted, tuple_(*_ORDER) < _BEFORE).order_by(*(one.desc() for one in _ORDER))
    return statement(page.limit(bindparam("limit")))


ALL, BY = _page(), {name: _page(name) for name in ("subject", "actor", "action")}
# Find each next action by the index, independent of the number of rows per action.
ACTIONS = statement(
    sql("""
WITH RECURSIVE known(action) AS (
  SELECT min(action) FROM audit
  UNION ALL SELECT (SELECT min(action) FROM audit WHERE audit.action > known.action) FROM known WHERE action IS NOT NULL
)
SELECT action FROM known WHERE action IS NOT NULL
""")
)


# Find each next user by the index: devices, which also have rows, can be very many.
PEOPLE = statement(
    sql("""
WITH RECURSIVE known(actor) AS (
  SELECT min(actor) FROM audit WHERE audit.actor >= 'user:' AND audit.actor < 'user;'
  UNION ALL SELECT (SELECT min(actor) FROM audit WHERE audit.actor > known.actor AND audit.actor < 'user;')
  FROM known WHERE actor IS NOT NULL
)
SELECT actor FROM known WHERE actor IS NOT NULL
""")
)
_PERSON, _OPERATOR = "user:", "operator"


class _AuditPosition(NamedTuple):
    at: int
    chain: str
    seq: int


_END = _AuditPosition(2**62, "", 0)
_BEGIN = -(2**62)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Audit log filter; all conditions must match. An `action` that ends with a dot is a prefix.

    `people` restricts it to users and the local administrator; `since` is the earliest time.
    """

    actor: str | None = None
    subject: str | None = None
    action: str | None = None
    people: bool = False
    since: datetime | None = None

    def matches_row(self, row: Mapping[str, Any]) -> bool:
        """Return whether the row matches the filter."""
        return (
            self.actor in {None, row["actor"]}
            and self.subject in {None, row["subject"]}
            and (self.action is None or is_of(row["action"], self.action))
            and (not self.people or is_person(row["actor"]))
        )


def is_person(actor: str) -> bool:
    """Return whether the actor is a user or the local administrator, not a device, program, or worker."""
    return actor == _OPERATOR or actor.startswith(_PERSON)


def is_of(action: str, pattern: str) -> bool:
    """Return whether an action equals the wanted one or has it as its prefix: `dps.` matches `dps.register`."""
    return action.startswith(pattern) if pattern.endswith(".") else action == pattern


async def latest(
    database: DatabaseReader, query: AuditQuery, *, before: str = "", limit: int
) -> Page[Mapping[str, Any]]:
    """Return the latest rows, or those before a position. Raise `PageInvalidError`."""
    place = _parsed(before) if before else _END
    by = next((name for name in BY if getattr(query, name) is not None), None)
    is_exact = sum(getattr(query, name) is not None for name in BY) + query.people <= 1
    since = _BEGIN if query.since is None else to_micros(query.since)
    each, looked, found = limit + 1 if is_exact else _EACH, 0, list[Row]()
    while looked < MAX_LOOKED:
        rows = await _rows(database, by, query, place, each)
        is_last = len(rows) < each or rows[-1]["at"] < since
        found += [row for row in rows if row["at"] >= since and query.matches_row(row)]
        if len(found) > limit:
            return Page([_view(row) for row in found[:limit]], _text_of(found[limit - 1]))
        if is_last:
            return Page([_view(row) for row in found], None)
        looked += len(rows)
        place = _place_of(rows[-1])
    return Page([_view(row) for row in found], _text_of(rows[-1]))


async def _rows(
    database: DatabaseReader, by: str | None, query: AuditQuery, position: _AuditPosition, limit: int
) -> Sequence[Row]:
    """Return the rows before a position by one of the columns."""
    asked: dict[str, Any] = {"before_at": position.at, "chain": position.chain, "seq": position.seq, "limit": limit}
    if by is None and query.people:
        people = [_OPERATOR, *(row["actor"] for row in await database.all(PEOPLE))]
        rows = [row for one in people for row in await database.all(BY["actor"], **asked, actor=one)]
        return sorted(rows, key=_place_of, reverse=True)[:limit]
    if by is None:
        return await database.all(ALL, **asked)
    value = getattr(query, by)
    if by != "action" or not value.endswith("."):
        return await database.all(BY[by], **asked, **{by: value})
    known = [row["action"] for row in await database.all(ACTIONS) if is_of(row["action"], value)]
    rows = [row for one in known for row in await database.all(BY["action"], **asked, action=one)]
    return sorted(rows, key=_place_of, reverse=True)[:limit]


def _view(row: Row) -> dict[str, Any]:
    known = {name: row[name] for name in ("actor", "action", "subject")}
    detail = json.loads(row["detail"])
    return {
        "at": from_micros(row["at"]).isoformat(),
        **known,
        "detail": detail,
        "chain": row["chain"],
        "seq": row["seq"],
    }


def _place_of(row: Row) -> _AuditPosition:
    return _AuditPosition(row["at"], row["chain"], row["seq"])


def _text_of(row: Row) -> str:
    return f"{row['at']}.{row['seq']}.{row['chain']}"


def _parsed(text: str) -> _AuditPosition:
    at, _, rest = text.partition(".")
    seq, _, chain = rest.partition(".")
    try:
        return _AuditPosition(int(at[:_DIGITS]), chain, int(seq[:_DIGITS]))
    except ValueError as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
