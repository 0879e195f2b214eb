"""Refusal counts by code for a recent period, with new codes and the latest refusal of each.

The values come from the counters and include refusals without stored rows. They are hourly, starting with the hour that
contains the start of the period.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam
from sqlalchemy import text as sql

from birthmark.refusals.ledger import FIGURE
from birthmark.refusals.queries import refusals_about
from birthmark.refusals.store import Refusal
from birthmark.store import statement, to_micros
from birthmark.store.database import DatabaseReader
from birthmark.store.object_counters import HOUR

# Read only the requested hours of a code, not its complete history.
_COUNTS = statement(
    sql("""
WITH RECURSIVE codes(code) AS (
  SELECT min(state) FROM figures WHERE name = :figure AND place = ''
  UNION ALL
  SELECT (SELECT min(state) FROM figures WHERE name = :figure AND place = '' AND state > codes.code)
  FROM codes WHERE code IS NOT NULL
)
SELECT code,
  (SELECT sum(value) FROM figures WHERE name = :figure AND place = '' AND state = code AND since >= :since) AS now,
  (SELECT sum(value) FROM figures WHERE name = :figure AND place = '' AND state = code
    AND since >= :earlier AND since < :since) AS before
FROM codes WHERE code IS NOT NULL
""").bindparams(bindparam("figure", type_=Text), *(bindparam(name, type_=BigInteger) for name in ("since", "earlier")))
)


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """A code with its count in the period and in the equal period before."""

    code: str
    count: int
    before: int
    latest: Refusal | None
    """The latest refusal; None if its rows are deleted."""

    @property
    def is_new(self) -> bool:
        return not self.before

    def as_json(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        latest = None if self.latest is None else self.latest.as_json()
        counts = {"count": self.count, "before": self.before, "is_new": self.is_new}
        return {"code": self.code, **counts, "latest": latest}


async def reasons(database: DatabaseReader, now: datetime, back: timedelta) -> Sequence[ReasonCount]:
    """Return every code refused in the period up to `now`, the most frequent first."""
    since = to_micros(now - back) // HOUR * HOUR
    earlier = since - (to_micros(now) - since) // HOUR * HOUR
    rows = await database.all(_COUNTS, figure=FIGURE, since=since, earlier=earlier)
    found: list[ReasonCount] = []
    for row in sorted((row for row in rows if row["now"]), key=lambda row: (-row["now"], row["code"])):
        latest = await refusals_about(database, None, 1, code=row["code"])
        found.append(ReasonCount(row["code"], int(row["now"]), int(row["before"] or 0), next(iter(latest), None)))
    return found
