"""The index of twins: writes the terms of those that changed, behind their commits.

Each change of a twin marks it; who goes through the marks takes them away where the twin is still as it was read. So
nothing is forgotten when a process is killed, an upgrade marks all, and a device that reports very often is indexed
once in a while. Nobody is woken: it looks again after a moment.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub import searching, store
from birthmark.iothub.rules import terms as rules
from birthmark.iothub.rules.terms import Term
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.keyed import MOST_AMONG, these

LOOK_EVERY_S = 0.5
_REST_S = 0.02


async def _always() -> bool:
    return True


class Index:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.leads: Callable[[], Awaitable[bool]] = _always
        """Says whether this worker indexes for all."""
        self.written = 0
        """So many twins were indexed by this process."""

    async def keep_indexing(self) -> None:
        """Index what changed, again and again; after each few, rest as long as they took."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            is_behind = await self.leads() and await self.index_some() == MOST_AMONG
            await asyncio.sleep(max(loop.time() - began, _REST_S) if is_behind else LOOK_EVERY_S)

    async def index_all(self) -> None:
        """Index all that is marked now."""
        while await self.index_some():
            pass

    async def index_some(self) -> int:
        """Index some twins that changed; return how many were looked at."""
        rows = await self._database.all(searching.UNINDEXED, limit=MOST_AMONG)
        by_hub: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_hub[row["hub"]].append(row)
        for hub, some in by_hub.items():
            known = await self._terms(hub, [row["device_id"] for row in some])
            written = [self._database.commit(_changes(row, known[row["device_id"]])) for row in some]
            for outcome in await asyncio.gather(*written, return_exceptions=True):
                if outcome is None:
                    self.written += 1
                elif not isinstance(outcome, ChangedMeanwhileError):  # which is marked again
                    raise outcome
        return len(rows)

    async def unindexed(self) -> int:
        """Return how many twins wait to be indexed."""
        row = await self._database.one(searching.COUNT_UNINDEXED)
        return 0 if row is None else int(row["count"])

    async def _terms(self, hub: str, names: Sequence[str]) -> defaultdict[str, set[Term]]:
        found: defaultdict[str, set[Term]] = defaultdict(set)
        for row in await self._database.all(searching.TERMS_OF, place=hub, **these(names)):
            found[row["subject"]].add((row["path"], row["value"]))
        return found


def _changes(row: Row, known: set[Term]) -> Changes:
    """Return what makes the terms of a twin those of what was read of it, and holds while it is that."""
    tags, desired, reported = searching.values_of(row["body"])
    wanted = rules.of_twin(tags, desired.values, reported.values)
    state = store.BEYOND_INDEX if wanted is None else 0
    as_read: dict[str, Any] = {f"key_{name}": row[name] for name in ("hub", "device_id", "version", "body")}
    changes = Changes().run(
        searching.INDEXED, expect=1, otherwise=ChangedMeanwhileError(what="The twin"), unindexed=state, **as_read
    )
    made = set(wanted or ())
    for statement, some in ((searching.DROP_TERM, known - made), (searching.ADD_TERM, made - known)):
        for path, value in sorted(some):
            changes.run(statement, place=row["hub"], subject=row["device_id"], path=path, value=value)
    return changes
