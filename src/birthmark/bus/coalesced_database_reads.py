"""Coalesced database queries about other workers, shared by all waiting confirmations.

A worker to which hundreds of devices reconnect is notified of as many changes, acknowledges late, and is marked. A mark
makes it re-read everything before its next heartbeat. One mark per change would make it read forever and lose its
lease.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


class CoalescedReader(Generic[T]):
    """Coalesces reads of concurrent callers; each caller gets a read that started after its call."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._now: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """Return the result of the read, or raise its error."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._after(self._now))
        return await asyncio.shield(self._next)

    async def _after(self, before: "asyncio.Task[T] | None") -> T:
        if before is not None:
            await asyncio.wait({before})
        self._now, self._next = self._next, None
        return await self._read()
