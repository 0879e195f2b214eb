"""Marks that make a worker re-read its caches, because it did not confirm an event."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from birthmark.bus.ports import Members
from birthmark.errors import BirthmarkError
from birthmark.supervised_tasks import told

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _ReadWaiter:
    """A waiter for a worker's read; `is_whole` also waits until the worker's cached state is invalid."""

    is_whole: bool
    over: "asyncio.Future[bool]"
    mark: int = 0


class MissedWorkerMarker:
    """Marks of one other worker.

    A new mark is written after it has read the last one or its lease has expired.
    """

    def __init__(self, members: Members, worker: str, lease_s: float, pause_s: float) -> None:
        self._members = members
        self._worker = worker
        self._lease_s = lease_s
        self._pause_s = pause_s
        self._unmarked: list[_ReadWaiter] = []
        self._marked: list[_ReadWaiter] = []
        self._last: tuple[int, float] | None = None
        """Unread mark, and when the worker's lease expires because of it."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_asked(self) -> bool:
        """Return whether there are waiters."""
        return self._task is not None and not self._task.done()

    async def read(self, *, is_whole: bool) -> bool:
        """Wait until the worker's earlier state is invalid; return whether it has read the mark or is dead.

        `is_whole` requires this even if the lease expired.
        """
        loop = asyncio.get_running_loop()
        one = _ReadWaiter(is_whole, loop.create_future())
        self._unmarked.append(one)
        if not self.is_asked:
            self._task = loop.create_task(told("marking a worker", self._run()))
        return await one.over

    async def _run(self) -> None:
        """Run until there are no waiters; an internal error fails all of them."""
        try:
            await self._rounds()
        except Exception as error:
            for one in (*self._unmarked, *self._marked):
                if not one.over.done():
                    one.over.set_exception(error)
            raise

    async def _rounds(self) -> None:
        while True:
            with contextlib.suppress(BirthmarkError):  # shared database unavailable: the lease ends all the same
                await self._look()
            self._lapse()
            with contextlib.suppress(BirthmarkError):
                await self._mark()
            self._unmarked = [one for one in self._unmarked if not one.over.done()]
            self._marked = [one for one in self._marked if not one.over.done()]
            if not (self._unmarked or self._marked):
                return
            await asyncio.sleep(self._pause_s)

    async def _look(self) -> None:
        """Complete the waiters up to the highest mark that was read."""
        last = {self._last[0]} if self._last else set()
        for mark in sorted({one.mark for one in self._marked} | last, reverse=True):
            if await self._members.has_read(self._worker, mark):
                self._tell([one for one in self._marked if one.mark <= mark], has_read=True)
                if mark in last:
                    self._last = None
                return

    async def _mark(self) -> None:
        """Write a mark for all new waiters, unless an unread mark exists."""
        if self._last is not None or not self._unmarked:
            return
        count = len(self._unmarked)  # later waiters need the next mark
        log.info("bus.marked", extra={"worker": self._worker})
        mark = await self._members.mark(self._worker)
        some, self._unmarked = self._unmarked[:count], self._unmarked[count:]
        if mark is None:
            self._tell([*self._marked, *some], has_read=True)
            return
        for one in some:
            one.mark = mark
        self._marked += some
        self._last = mark, asyncio.get_running_loop().time() + self._lease_s

    def _lapse(self) -> None:
        """Complete the waiters that need only the end of the lease, once it has expired."""
        if self._last is None or asyncio.get_running_loop().time() < self._last[1]:
            return
        mark, self._last = self._last[0], None
        self._tell([one for one in self._marked if one.mark <= mark and not one.is_whole], has_read=False)

    def _tell(self, some: list[_ReadWaiter], *, has_read: bool) -> None:
        for one in some:
            if not one.over.done():
                one.over.set_result(has_read)
