"""Who reads next, where more is asked at once than there are connections: each asker in turn, not each question."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator


class Turns:
    """So many at once; who waits has a line of its own, and the lines have their turn one after the other."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

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
            whose, line = self._lines.popitem(last=False)
            ready = line.popleft()
            if line:
                self._lines[whose] = line  # behind the others
            if not ready.done():
                ready.set_result(None)
                return
        self._room += 1
