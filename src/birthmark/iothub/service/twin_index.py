"""The index of twins: writes the terms of those that changed, behind their commits.

Each change of a twin marks it; who goes through the marks takes them away where the twin is still as it was read. So
nothing is forgotten when a process is killed, an upgrade marks all, and a device that reports very often is indexed
once in a while. Nobody is woken: it looks again after a moment. It writes in portions, and rests after each for longer
than it took: whoever reports comes first.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from birthmark.iothub import store, twin_search
from birthmark.iothub.rules import index_terms as rules
from birthmark.iothub.rules.index_terms import Term
from birthmark.store import Changes, Database
from birthmark.store.crud_statements import MOST_AMONG, these
from birthmark.store.database import Row
from birthmark.supervised_tasks import Leads, always

LOOK_EVERY_S = 0.5
_RESTS = 5
MOST_WRITES = 500
"""Of one commit, beside which others wait; a twin may have some thousand terms that differ."""
_TOGETHER = 10
"""Twins whose terms are read at once."""
_ANY = 1_000_000
_TO_INDEX = store.NEVER_INDEXED, store.CHANGED
_FIRST = "", ""


class TwinIndex:
    """See the module."""

    def __init__(self, database: Database, leads: Leads = always) -> None:
        """`leads` says whether this worker indexes for all."""
        self._database = database
        self.leads = leads
        self._last = dict.fromkeys(_TO_INDEX, _FIRST)
        self.looked_at = 0
        """So many twins were gone through by this process."""

    async def keep_indexing(self) -> None:
        """Index what changed, again and again, and rest in between."""
        while True:
            is_behind = await self.leads() and await self.index_some(_RESTS) >= MOST_AMONG
            if not is_behind:
                await asyncio.sleep(LOOK_EVERY_S)

    async def index_all(self) -> None:
        """Index all that is marked now."""
        while await self.index_some():
            pass

    async def index_some(self, rests: float = 0) -> int:
        """Index some twins of each state, those that follow the last ones; return how many were looked at.

        After each portion it rests for `rests` times as long as that took.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        rows = [row for state in _TO_INDEX for row in await self._next(state)]
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
                    await asyncio.sleep(0)  # others are served in between

    async def _next(self, state: int) -> Sequence[Row]:
        """Return the next twins of a state, behind the last of which the first follow: none waits for busy ones."""
        while True:
            hub, device_id = self._last[state]
            asked: dict[str, Any] = {"state": state, "hub": hub, "device_id": device_id, "limit": MOST_AMONG}
            rows = await self._database.all(twin_search.NEXT_UNINDEXED, **asked)
            if rows:
                self._last[state] = rows[-1]["hub"], rows[-1]["device_id"]
                return rows
            if (hub, device_id) == _FIRST:
                return ()
            self._last[state] = _FIRST

    async def unindexed(self) -> int:
        """Return how many twins wait to be indexed."""
        rows = [await self._database.one(twin_search.WAITING, state=state, limit=_ANY) for state in _TO_INDEX]
        return sum(0 if row is None else int(row["count"]) for row in rows)

    async def _terms(self, hub: str, names: Sequence[str]) -> defaultdict[str, set[Term]]:
        found: defaultdict[str, set[Term]] = defaultdict(set)
        for row in await self._database.all(twin_search.TERMS_OF, place=hub, **these(names)):
            found[row["subject"]].add((row["path"], row["value"]))
        return found


def portions_for(row: Row, known: set[Term]) -> Iterator[Changes]:
    """Yield what makes the terms of a twin those of what was read of it; the last takes its mark away.

    Where the twin is still that, which is no condition of the commit: a twin that changes all the time would fail it
    again and again, and its neighbors with it. What a twin's terms lag behind it, its mark says, also between portions.
    """
    found = twin_search.values_of(row["body"])
    wanted = rules.of_twin(found.tags, found.desired.values, found.reported.values, found.model_id)
    made = set(wanted or ())
    changed = [(twin_search.DROP_TERM, one) for one in sorted(known - made)]
    changed += [(twin_search.ADD_TERM, one) for one in sorted(made - known)]
    as_read: dict[str, Any] = {f"key_{name}": row[name] for name in ("hub", "device_id", "version", "body")}
    done = store.BEYOND_INDEX if wanted is None else 0
    for first in range(0, len(changed) or 1, MOST_WRITES):
        is_last = first + MOST_WRITES >= len(changed)
        portion = Changes().run(twin_search.INDEXED, state=done if is_last else row["unindexed"], **as_read)
        for statement, (path, value) in changed[first : first + MOST_WRITES]:
            portion.run(statement, place=row["hub"], subject=row["device_id"], path=path, value=value)
        yield portion
