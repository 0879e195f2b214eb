"""What is on its way, to other workers or to the disk: so much for each who publishes, who waits for the rest."""

import asyncio
from collections.abc import Awaitable

WINDOW_BYTES = 256 * 1024
"""Of what goes to other workers, and is kept by nobody."""
OVERHEAD_BYTES = 1024
"""What a message counts beside its own size."""
UNWRITTEN_BYTES = 1024 * 1024
"""Of what is for stored sessions, and not on the disk: whatever else they get waits behind it."""
ROW_BYTES = 256
"""What a message counts for each of them, beside its own size."""


class InFlightBudget:
    """Bytes by the key, or the client, that published them."""

    def __init__(self, window_bytes: int = WINDOW_BYTES, overhead_bytes: int = OVERHEAD_BYTES) -> None:
        self._window, self._overhead = window_bytes, overhead_bytes
        self._bytes: dict[str, int] = {}
        self._full: dict[str, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        """Say how many have something on its way."""
        return len(self._bytes)

    def __contains__(self, owner: str) -> bool:
        """Say whether an owner has something on its way."""
        return owner in self._bytes

    def begun(self, owner: str, size: int) -> None:
        """So much more is on its way."""
        self._bytes[owner] = self._bytes.get(owner, 0) + size + self._overhead

    def ended(self, owner: str, size: int) -> None:
        """It has come, or never will."""
        left = self._bytes[owner] = self._bytes[owner] - size - self._overhead
        if not left:
            del self._bytes[owner]
        if left <= self._window and (waiting := self._full.pop(owner, None)) is not None:
            waiting.set_result(None)

    def full(self, owner: str) -> Awaitable[None] | None:
        """Return what ends when there is room; None where there is."""
        if self._bytes.get(owner, 0) <= self._window:
            return None
        if (waiting := self._full.get(owner)) is None:
            waiting = self._full[owner] = asyncio.get_running_loop().create_future()
        return asyncio.shield(waiting)  # several may wait, and one of them may go
