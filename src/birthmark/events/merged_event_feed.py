"""Reader of events after a position: each worker's chain of the audit log and of its transient events.

Rows of all chains are merged by time.
"""

import base64
import heapq
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from birthmark.audit.chain_verification import HEADS_OF_ALL, ROWS
from birthmark.errors import InvalidRequestError
from birthmark.events.model import NOTICED, OperationEvent, Places
from birthmark.events.store import NOTICED_UPTO_BY_ALL, NOTICES, NOTICES_OF
from birthmark.store import Database, from_micros
from birthmark.untrusted_json_and_text import decode_json

_MAX_CHARS = 16 * 1024
_NOTICING = "server"
PAGE = 200


class PlaceInvalidError(InvalidRequestError):
    """The position in the event feed is not valid."""

    code = "feed.place_invalid"
    cause = "The position does not match the format of the feed's events."
    fix = "Omit the position to start with new events, or pass the `place` of the last processed event."
    for_a_person = "a developer has to change the calling program"


def place_of(places: Places) -> str:
    """Format a position as text."""
    text = json.dumps(dict(sorted(places.items())), separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_place(text: str) -> Places:
    """Parse a position. Raise `PlaceInvalidError`."""
    try:
        if len(text) > _MAX_CHARS:
            raise PlaceInvalidError
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        found = decode_json(raw, dict[str, int])
    except (ValueError, RecursionError) as error:
        raise PlaceInvalidError from error
    if any(seq < 0 or seq >= 1 << 63 for seq in found.values()):
        raise PlaceInvalidError
    return found


@dataclass(frozen=True, slots=True)
class Feed:
    """Events after a position."""

    database: Database = field(repr=False)

    async def end(self) -> Places:
        """Return the position after all events so far."""
        heads = [*await self.database.all(HEADS_OF_ALL), *await self.database.all(NOTICED_UPTO_BY_ALL)]
        return {row["chain"]: row["seq"] for row in heads}

    async def after(self, places: Places, limit: int = PAGE) -> Sequence[tuple[OperationEvent, Places]]:
        """Return the next events, oldest first, each with the position after it; empty at the end.

        Events of one chain keep their order. An unknown chain starts at its first row.
        """
        chains: list[list[tuple[datetime, OperationEvent]]] = []
        for chain, end in (await self.end()).items():
            if places.get(chain, 0) < end:
                rows_of = NOTICES if chain.startswith(NOTICED) else ROWS
                rows = await self.database.all(rows_of, chain=chain, after=places.get(chain, 0), limit=limit)
                chains.append(_in_order([_happening(row) for row in rows if row["seq"] <= end]))
        merged = heapq.merge(*chains, key=lambda one: (one[0], one[1].chain))
        now, told = dict(places), []
        for _, one in itertools.islice(merged, limit):
            now[one.chain] = one.seq
            told.append((one, dict(now)))
        return told

    async def noticed_of(self, subject: str, limit: int) -> Sequence[OperationEvent]:
        """Return the transient events of a device in the last week, latest first."""
        return [_happening(row) for row in await self.database.all(NOTICES_OF, subject=subject, limit=limit)]


def _in_order(rows: Sequence[OperationEvent]) -> list[tuple[datetime, OperationEvent]]:
    """Return rows of one chain with times that never decrease, although a worker's clock may."""
    times = itertools.accumulate((one.at for one in rows), max)
    return list(zip(times, rows, strict=True))


def _happening(row: Any) -> OperationEvent:
    return OperationEvent(
        row["chain"],
        row["seq"],
        from_micros(row["at"]),
        _NOTICING if row["chain"].startswith(NOTICED) else row["actor"],
        row["action"],
        row["subject"],
        json.loads(row["detail"]),
    )
