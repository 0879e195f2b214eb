"""Looking on: what is published to a filter, for somebody who is no client."""

import asyncio
from collections import deque
from collections.abc import Sequence

from birthmark.broker.model import Message
from birthmark.net.admission import Closed

MAX_WAITING = 1000
MAX_WAITING_BYTES = 4 * 1024 * 1024


class Viewer:
    """A connection that keeps what it gets until somebody takes it; what is too much is counted, and lost."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._bytes = self._lost = 0
        self._came = asyncio.Event()

    def deliver(
        self, message: Message, qos: int, *, retain: bool, packet_id: int | None = None, dup: bool = False
    ) -> bool:
        del qos, retain, packet_id, dup
        self._came.set()
        if len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            self._lost += 1
            return False
        self._waiting.append(message)
        self._bytes += len(message.payload)
        return True

    def end(self, reason: Closed) -> None:
        """Nobody ends it but who looks on."""

    async def take(self, wait_s: float) -> tuple[Sequence[Message], int]:
        """Return what came, and how many messages were lost after it; nothing when the time is up first."""
        try:
            async with asyncio.timeout(wait_s):
                await self._came.wait()
        except TimeoutError:
            return (), 0
        found, lost = tuple(self._waiting), self._lost
        self._waiting.clear()
        self._bytes = self._lost = 0
        self._came.clear()
        return found, lost
