"""Fair scheduling of limited slots: clients take turns, whatever the number of their requests."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

OWN = ""
"""Queue of the server's own requests, such as its health checks: they precede many devices, but not all."""


class FairSemaphore:
    """A semaphore with a queue per client; the queues are served in turn.

    The server's own queue gets every other turn.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._is_own_next = True

    @contextlib.asynccontextmanager
    async def of(self, whose: str) -> AsyncIterator[None]:
        """Hold a slot for the client `whose`."""
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
            if ready.done() and not ready.cancelled():  # cancelled after its turn came
                self._next()
            raise

    def _next(self) -> None:
        """Wake the next waiting request."""
        while self._lines:
            whose = OWN if self._is_own_next and OWN in self._lines else next(iter(self._lines))
            line = self._lines.pop(whose)
            ready = line.popleft()
            if line:
                self._lines[whose] = line  # after the others
            if not ready.done():
                self._is_own_next = whose != OWN
                ready.set_result(None)
                return
        self._room += 1
