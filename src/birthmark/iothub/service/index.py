"""The index of twins: writes the terms of those that changed, behind their commits.

Each change of a twin marks it; who goes through the marks takes them away where the twin is still as it was read. So
nothing is forgotten when a process is killed, an upgrade marks all, and a device that reports very often is indexed
once in a while. Nobody is woken: it looks again after a moment. It takes no more than a part of the time: whoever
reports comes first.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from birthmark.iothub import searching, store
from birthmark.iothub.rules import terms as rules
from birthmark.iothub.rules.terms import Term
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.keyed import MOST_AMONG, these

LOOK_EVERY_S = 0.5
_RESTS = 5
_ANY = 1_000_000
_TO_INDEX = store.NEVER_INDEXED, store.CHANGED
_FIRST = "", ""


async def _always() -> bool:
    return True


class Index:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.leads: Callable[[], Awaitable[bool]] = _always
        """Says whether this worker indexes for all."""
        self._last = dict.fromkeys(_TO_INDEX, _FIRST)
        self.looked_at = 0
        """So many twins were gone through by this process."""

    async def keep_indexing(self) -> None:
        """Index what changed, again and again; between some and the next, rest for longer than they took."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            is_behind = await self.leads() and await self.index_some() >= MOST_AMONG
            await asyncio.sleep(_RESTS * (loop.time() - began) if is_behind else LOOK_EVERY_S)

    async def index_all(self) -> None:
        """Index all that is marked now."""
        while await self.index_some():
            pass

    async def index_some(self) -> int:
        """Index some twins of each state, those that follow the last ones; return how many were looked at."""
        rows = [row for state in _TO_INDEX for row in await self._next(state)]
        by_hub: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_hub[row["hub"]].append(row)
        changes = Changes()
        for hub, some in by_hub.items():
            known = await self._terms(hub, [row["device_id"] for row in some])
            for row in some:
                add_changes(changes, row, known[row["device_id"]])
        if rows:
            await self._database.commit(changes)
        self.looked_at += len(rows)
        return len(rows)

    async def _next(self, state: int) -> Sequence[Row]:
        """Return the next twins of a state, behind the last of which the first follow: none waits for busy ones."""
        while True:
            hub, device_id = self._last[state]
            asked: dict[str, Any] = {"state": state, "hub": hub, "device_id": device_id, "limit": MOST_AMONG}
            rows = await self._database.all(searching.NEXT_UNINDEXED, **asked)
            if rows:
                self._last[state] = rows[-1]["hub"], rows[-1]["device_id"]
                return rows
            if (hub, device_id) == _FIRST:
                return ()
            self._last[state] = _FIRST

    async def unindexed(self) -> int:
        """Return how many twins wait to be indexed."""
        rows = [await self._database.one(searching.WAITING, state=state, limit=_ANY) for state in _TO_INDEX]
        return sum(0 if row is None else int(row["count"]) for row in rows)

    async def _terms(self, hub: str, names: Sequence[str]) -> defaultdict[str, set[Term]]:
        found: defaultdict[str, set[Term]] = defaultdict(set)
        for first in range(0, len(names), MOST_AMONG):
            some = these(names[first : first + MOST_AMONG])
            for row in await self._database.all(searching.TERMS_OF, place=hub, **some):
                found[row["subject"]].add((row["path"], row["value"]))
        return found


def add_changes(changes: Changes, row: Row, known: set[Term]) -> None:
    """Make the terms of a twin those of what was read of it, and take its mark away where it is still that.

    No condition of the commit: a twin that changes all the time would fail it again and again, and its neighbors with
    it. What a twin's terms lag behind it, its mark says.
    """
    found = searching.values_of(row["body"])
    wanted = rules.of_twin(found.tags, found.desired.values, found.reported.values, found.model_id)
    state = store.BEYOND_INDEX if wanted is None else 0
    as_read: dict[str, Any] = {f"key_{name}": row[name] for name in ("hub", "device_id", "version", "body")}
    changes.run(searching.INDEXED, state=state, **as_read)
    made = set(wanted or ())
    for statement, some in ((searching.DROP_TERM, known - made), (searching.ADD_TERM, made - known)):
        for path, value in sorted(some):
            changes.run(statement, place=row["hub"], subject=row["device_id"], path=path, value=value)
