"""Twin indexer: writes the index terms of changed twins after their commits.

Each change of a twin marks it; the indexer removes the mark where the twin is still as it was read. So no change is
lost when a process is killed, an upgrade marks all twins, and a device that reports very often is indexed only
occasionally. The indexer polls, writes in batches, and rests after each longer than the batch took, so that device
reports have priority.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from birthmark.iothub import store, twin_index_store
from birthmark.iothub.rules import index_terms as rules
from birthmark.iothub.rules.index_terms import Term
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters
from birthmark.supervised_tasks import Leads, always, told

LOOK_EVERY_S = 0.5
_RESTS = 5
MOST_WRITES = 500
"""Maximum writes per commit, as other commits wait for it; a twin may have about a thousand changed terms."""
_TOGETHER = 10
"""Number of twins whose terms are read at once."""
_ANY = 1_000_000
_TO_INDEX = store.NEVER_INDEXED, store.CHANGED
_FIRST = "", ""
Changed = Callable[[str, Sequence[str]], Awaitable[None]]
"""Handles twins of a hub that changed, by name, before they are indexed; again if this process is killed."""


async def _ignore(_hub: str, _names: Sequence[str]) -> None:
    """Handle no changes."""


class TwinIndex:
    """Background indexer of twins."""

    def __init__(self, database: Database, leads: Leads = always, changed: Changed = _ignore) -> None:
        """`leads` returns whether this worker indexes for all."""
        self._database = database
        self._changed = changed
        self.leads = leads
        self._last = dict.fromkeys(_TO_INDEX, _FIRST)
        self.looked_at = 0
        """Number of twins processed by this process."""

    async def run_index_loop(self) -> None:
        """Index changed twins forever, with pauses."""
        while True:
            is_behind = await self.leads() and await self.index_batch(_RESTS) >= MAX_LIST_VALUES
            if not is_behind:
                await asyncio.sleep(LOOK_EVERY_S)

    async def index_all(self) -> None:
        """Index all twins that are marked now."""
        while await self.index_batch():
            pass

    async def index_batch(self, rests: float = 0) -> int:
        """Index the next twins of each state; return the number processed.

        After each batch, it rests for `rests` times the batch's duration.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        rows = [row for state in _TO_INDEX for row in await self._next(state)]
        by_hub: defaultdict[str, list[str]] = defaultdict(list)
        for row in rows:
            by_hub[row["hub"]].append(row["device_id"])
        for hub, names in by_hub.items():
            # An error must not stop the index; the next sweep evaluates the twins again.
            await told("configurations of changed twins", self._changed(hub, names))
        changes = Changes()
        async for portion in self._portions_for(rows):
            changes.merge(portion)
            if len(changes.writes) >= MOST_WRITES:
                await self._database.commit(changes)
                changes = Changes()
                await asyncio.sleep(rests * (loop.time() - began))
                began = loop.time()
        if changes.writes:
            await self._database.commit(changes)
            await asyncio.sleep(rests * (loop.time() - began))
        self.looked_at += len(rows)
        return len(rows)

    async def _portions_for(self, rows: Sequence[Row]) -> AsyncIterator[Changes]:
        by_hub: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_hub[row["hub"]].append(row)
        for hub, some in by_hub.items():
            for first in range(0, len(some), _TOGETHER):
                together = some[first : first + _TOGETHER]
                known = await self._terms(hub, [row["device_id"] for row in together])
                for row in together:
                    for portion in portions_for(row, known[row["device_id"]]):
                        yield portion
                    await asyncio.sleep(0)  # yield to others

    async def _next(self, state: int) -> Sequence[Row]:
        """Return the next twins of a state, round-robin, so that busy twins delay no others."""
        while True:
            hub, device_id = self._last[state]
            asked: dict[str, Any] = {"state": state, "hub": hub, "device_id": device_id, "limit": MAX_LIST_VALUES}
            rows = await self._database.all(twin_index_store.NEXT_UNINDEXED, **asked)
            if rows:
                self._last[state] = rows[-1]["hub"], rows[-1]["device_id"]
                return rows
            if (hub, device_id) == _FIRST:
                return ()
            self._last[state] = _FIRST

    async def unindexed(self) -> int:
        """Return the number of twins to be indexed."""
        rows = [await self._database.one(twin_index_store.WAITING, state=state, limit=_ANY) for state in _TO_INDEX]
        return sum(0 if row is None else int(row["count"]) for row in rows)

    async def _terms(self, hub: str, names: Sequence[str]) -> defaultdict[str, set[Term]]:
        found: defaultdict[str, set[Term]] = defaultdict(set)
        for row in await self._database.all(twin_index_store.TERMS_OF, place=hub, **list_parameters(names)):
            found[row["subject"]].add((row["path"], row["value"]))
        return found


def portions_for(row: Row, known: set[Term]) -> Iterator[Changes]:
    """Yield changes that update a twin's terms to the state that was read; the last one removes its mark.

    The mark is removed only if the twin is unchanged, which is not a condition of the commit. Otherwise, a constantly
    changing twin would fail every commit, together with its neighbors. The mark shows outdated terms, also between
    batches.
    """
    found = twin_index_store.values_of(row["body"])
    configurations = {name: {"status": one.status} for name, one in found.configurations.items()}
    sections = found.tags, found.desired.values, found.reported.values, found.model_id, configurations
    wanted = rules.of_twin(*sections)
    made = set(wanted or ())
    changed = [(twin_index_store.DROP_TERM, one) for one in sorted(known - made)]
    changed += [(twin_index_store.ADD_TERM, one) for one in sorted(made - known)]
    as_read: dict[str, Any] = {f"key_{name}": row[name] for name in ("hub", "device_id", "version", "body")}
    done = store.BEYOND_INDEX if wanted is None else 0
    for first in range(0, len(changed) or 1, MOST_WRITES):
        is_last = first + MOST_WRITES >= len(changed)
        portion = Changes().run(twin_index_store.INDEXED, state=done if is_last else row["unindexed"], **as_read)
        for statement, (path, value) in changed[first : first + MOST_WRITES]:
            portion.run(statement, place=row["hub"], subject=row["device_id"], path=path, value=value)
        yield portion
