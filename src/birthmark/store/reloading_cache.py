"""In-memory caches of a few rows, reloaded after each change.

Reloads run in sequence, so that a late result cannot replace a newer one. A reload that fails after a change is
repeated until it succeeds, because the cache may be stale. If it is unknown whether a change was committed, reloads
repeat until the engine has finished the commit (ADR 16).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from birthmark.errors import UnavailableError
from birthmark.store.compiled_statements import Statement
from birthmark.store.database import Database, Heard, Row, may_be_kept
from birthmark.store.event_base_and_codec import Event
from birthmark.supervised_tasks import cancel_and_wait, start_supervised

_T = TypeVar("_T")
UNSURE_S = 60.0
"""Seconds after which an interrupted commit is certain to be finished or aborted by the engine."""


class RowCache:
    """Cache of query results, at most `max_entries`; the oldest is evicted first.

    A commit that changes such rows publishes an event of one of `kinds`, and the cache is cleared before the commit
    returns. If the result of a commit is unknown, nothing is cached.
    """

    def __init__(self, database: Database, *kinds: type[Event], max_entries: int = 1024) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._max_entries = max_entries
        self._known: dict[tuple[Statement, tuple[Any, ...]], Sequence[Any]] = {}
        self._changes = 0
        self._kinds = kinds
        self._unsure_until = 0.0
        database.on_events(self._hear)

    def __len__(self) -> int:
        return len(self._known)

    async def all(self, statement: Statement, make: Callable[[Row], _T], /, **params: Any) -> Sequence[_T]:
        """Return `make(row)` for every row; always use the same `make` for a statement."""
        key = (statement, tuple(params.values()))
        is_fresh = self._database.sharing.is_fresh()
        if is_fresh and (known := self._known.get(key)) is not None:
            return cast("Sequence[_T]", known)
        before = self._changes
        made = tuple([make(row) for row in await self._database.all(statement, **params)])
        # Otherwise it may be data from before a change.
        if is_fresh and before == self._changes and self._loop.time() >= self._unsure_until:
            if len(self._known) >= self._max_entries:
                del self._known[next(iter(self._known))]
            self._known[key] = made
        return made

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - port signature
        if any(isinstance(event, self._kinds) for _, event in events):
            self._changes += 1
            self._known.clear()
            if not is_sure:
                self._unsure_until = self._loop.time() + UNSURE_S


_LOOK_EVERY_S = 1.0


class ReloadingCache:
    """A cache that `read` loads from the database. Writers of such rows pass their commit to `committed`.

    Changes of other workers are loaded on events of `kinds`.
    """

    def __init__(self, database: Database, read: Callable[[], Awaitable[None]], *kinds: type[Event]) -> None:
        self._read = read
        self._database, self._kinds = database, kinds
        database.on_events(self._hear)
        self._turn = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None
        self._unsure_until = 0.0

    async def load(self) -> None:
        """Reload after any running reload. Raise its error and retry in the background."""
        try:
            await self._load()
        except Exception:  # any error, such as a full disk: memory may be outdated until then
            self._go_on()
            raise

    async def committed(self, commit: Awaitable[None]) -> None:
        """Wait for a commit, then reload. Raise as the commit does."""
        try:
            await commit
        except BaseException as problem:
            await self.failed(problem)
            raise
        await self.load()

    async def failed(self, problem: BaseException) -> None:
        """Reload after a failed commit; if it may be stored, also in the background until that is certain."""
        if may_be_kept(problem):
            self._unsure_until = asyncio.get_running_loop().time() + UNSURE_S
            self._go_on()
        with suppress(UnavailableError):
            await self.load()

    async def stop(self) -> None:
        """Stop background reloads."""
        again, self._again = self._again, None
        await cancel_and_wait(again)

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - port signature
        if is_sure and any(not number and isinstance(event, self._kinds) for number, event in events):
            self._database.sharing.read(self.load())

    def _go_on(self) -> None:
        if self._again is None:
            self._again = start_supervised("rows in memory", self._until_sure)

    async def _load(self) -> None:
        async with self._turn:
            await self._read()

    async def _until_sure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._load()
            if began >= self._unsure_until:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        again, self._again = self._again, None
        if again is not None:
            again.cancel()
