"""Limits on data in flight to other workers or to disk.

Each publisher has a window and waits when it is full.
"""

import asyncio
from collections.abc import Awaitable

WINDOW_BYTES = 256 * 1024
"""Window for messages to other workers that are not stored."""
OVERHEAD_BYTES = 1024
"""Overhead per message in addition to its size."""
UNWRITTEN_BYTES = 1024 * 1024
"""Window for messages to stored sessions that are not durable yet; later messages to them wait."""
ROW_BYTES = 256
"""Overhead per message and stored session in addition to the message size."""


class InFlightBudget:
    """Bytes in flight, by the access key or client that published them."""

    def __init__(self, window_bytes: int = WINDOW_BYTES, overhead_bytes: int = OVERHEAD_BYTES) -> None:
        self._window, self._overhead = window_bytes, overhead_bytes
        self._bytes: dict[str, int] = {}
        self._full: dict[str, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        """Return the number of owners with data in flight."""
        return len(self._bytes)

    def __contains__(self, owner: str) -> bool:
        """Return whether an owner has data in flight."""
        return owner in self._bytes

    def add(self, owner: str, size: int) -> None:
        """Add bytes in flight."""
        self._bytes[owner] = self._bytes.get(owner, 0) + size + self._overhead

    def remove(self, owner: str, size: int) -> None:
        """Remove bytes in flight, after delivery or failure."""
        left = self._bytes[owner] = self._bytes[owner] - size - self._overhead
        if not left:
            del self._bytes[owner]
        if left <= self._window and (waiting := self._full.pop(owner, None)) is not None:
            waiting.set_result(None)

    def wait_for_space(self, owner: str) -> Awaitable[None] | None:
        """Return an awaitable that completes when the window has space, or None if it has space now."""
        if self._bytes.get(owner, 0) <= self._window:
            return None
        if (waiting := self._full.get(owner)) is None:
            waiting = self._full[owner] = asyncio.get_running_loop().create_future()
        return asyncio.shield(waiting)  # of several waiters, one may be cancelled
