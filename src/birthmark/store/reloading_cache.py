"""What is kept in memory of a few rows, read again after each change.

One read after the other: an answer that is late must not put back what a later one had replaced. A read that fails
after a change is repeated until it succeeds, as what is in memory may be untrue until then. And where nobody can tell
whether a change was kept it may still be, so that it is read again and again until the engine has ended it (ADR 16).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from birthmark.errors import UnavailableError
from birthmark.store.database import Database, Heard, Row, may_be_kept
from birthmark.store.events import Event
from birthmark.store.statements import Statement
from birthmark.supervised_tasks import ended, kept

_T = TypeVar("_T")
UNSURE_S = 60.0
"""An engine that went away finishes the commit that it had, or gives it up, long before that."""


class RowCache:
    """Answers of the database, at most `max_entries`, the oldest of which goes first.

    Whoever changes such a row announces it by an event of one of `kinds`, and all is forgotten before that change is
    answered. While nobody can tell whether one was kept, nothing is.
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
        """Return what `make` makes of every row; a statement is always asked with the same `make`."""
        key = (statement, tuple(params.values()))
        is_fresh = self._database.sharing.is_fresh()
        if is_fresh and (known := self._known.get(key)) is not None:
            return cast("Sequence[_T]", known)
        before = self._changes
        made = tuple([make(row) for row in await self._database.all(statement, **params)])
        # Else it may be what was read before a change.
        if is_fresh and before == self._changes and self._loop.time() >= self._unsure_until:
            if len(self._known) >= self._max_entries:
                del self._known[next(iter(self._known))]
            self._known[key] = made
        return made

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - as the port has it
        if any(isinstance(event, self._kinds) for _, event in events):
            self._changes += 1
            self._known.clear()
            if not is_sure:
                self._unsure_until = self._loop.time() + UNSURE_S


_LOOK_EVERY_S = 1.0


class ReloadingCache:
    """`read` asks the database and takes the answer over. Who changes such a row hands the commit to `committed`.

    What another worker changes is read at the events of `kinds`.
    """

    def __init__(self, database: Database, read: Callable[[], Awaitable[None]], *kinds: type[Event]) -> None:
        self._read = read
        self._database, self._kinds = database, kinds
        database.on_events(self._hear)
        self._turn = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None
        self._unsure_until = 0.0

    async def load(self) -> None:
        """Read, after whoever reads now. Raise what the reading raises; then it is tried again in the background."""
        try:
            await self._load()
        except Exception:  # whatever it is, such as a disk that is full: what is in memory may be untrue until then
            self._go_on()
            raise

    async def committed(self, commit: Awaitable[None]) -> None:
        """Read what came of a commit. Raise as it does."""
        try:
            await commit
        except BaseException as problem:
            await self.failed(problem)
            raise
        await self.load()

    async def failed(self, problem: BaseException) -> None:
        """Read after a commit that failed by this; where it may be kept, also in the background until that is sure."""
        if may_be_kept(problem):
            self._unsure_until = asyncio.get_running_loop().time() + UNSURE_S
            self._go_on()
        with suppress(UnavailableError):
            await self.load()

    async def stop(self) -> None:
        """End what reads in the background."""
        again, self._again = self._again, None
        await ended(again)

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - as the port has it
        if is_sure and any(not number and isinstance(event, self._kinds) for number, event in events):
            self._database.sharing.read(self.load())

    def _go_on(self) -> None:
        if self._again is None:
            self._again = kept("rows in memory", self._until_sure)

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
