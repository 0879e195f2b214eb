"""Whether something is there that this server needs, asked at most once a second however many want to know."""

import asyncio
from collections.abc import Awaitable, Callable

from birthmark.clock import Clock

KEPT_S = 1.0


class Reach:
    """Keeps the last answer of `ask` for a second; those who come meanwhile share it."""

    def __init__(self, ask: Callable[[], Awaitable[bool]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Future[bool] | None = None
        self._until = 0.0

    async def is_there(self) -> bool:
        """Say whether it is there, or was within the last second."""
        if self._asking is None or (self._asking.done() and self._clock.monotonic() >= self._until):
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._keep)
        return await asyncio.shield(self._asking)

    def _keep(self, _asked: asyncio.Future[bool]) -> None:
        self._until = self._clock.monotonic() + KEPT_S
