"""Who is next, where more is asked for at once than there is room: each asker in turn, not each question."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

OWN = ""
"""The server's own line: what it reads to know that it lives comes before the hundredth device, and not before all."""


class FairSemaphore:
    """So many at once; who waits has a line of its own, and the lines have their turn one after the other.

    The server's own has every other turn.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._is_own_next = True

    @contextlib.asynccontextmanager
    async def of(self, whose: str) -> AsyncIterator[None]:
        """Have a turn of `whose`."""
        if self._room and not self._lines:
            self._room -= 1
        else:
            await self._wait(whose)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, whose: str) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(whose, deque()).append(ready)
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():  # it was called, and does not come
                self._next()
            raise

    def _next(self) -> None:
        """Call the next who still waits."""
        while self._lines:
            whose = OWN if self._is_own_next and OWN in self._lines else next(iter(self._lines))
            line = self._lines.pop(whose)
            ready = line.popleft()
            if line:
                self._lines[whose] = line  # behind the others
            if not ready.done():
                self._is_own_next = whose != OWN
                ready.set_result(None)
                return
        self._room += 1
