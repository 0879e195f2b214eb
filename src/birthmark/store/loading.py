"""What is kept in memory of a few rows, read again after each change.

One read after the other: an answer that is late must not put back what a later one had replaced. A read that fails
after a change is repeated until it succeeds, as what is in memory may be untrue until then. And where nobody can tell
whether a change was kept it may still be, so that it is read again and again until the engine has ended it (ADR 16).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from birthmark.background import ended, kept
from birthmark.errors import UnavailableError
from birthmark.store.database import Database, Heard, may_be_kept
from birthmark.store.events import Event
from birthmark.store.remembered import UNSURE_S

_LOOK_EVERY_S = 1.0


class Loading:
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
