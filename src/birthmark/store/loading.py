"""What is kept in memory of a few rows, read again after each change.

One read after the other: an answer that is late must not put back what a later one had replaced. A read that fails
after a change is repeated until it succeeds, as what is in memory may be untrue until then.
"""

import asyncio
from collections.abc import Awaitable, Callable

from birthmark.background import kept
from birthmark.errors import UnavailableError


class Loading:
    """`read` asks the database and takes the answer over."""

    def __init__(self, read: Callable[[], Awaitable[None]]) -> None:
        self._read = read
        self._turn = asyncio.Lock()
        self._again: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read, after whoever reads now. Raise `UnavailableError`; then it is tried again in the background."""
        try:
            await self._load()
        except UnavailableError:
            if self._again is None:
                self._again = kept("rows in memory", self._until_loaded)
            raise

    async def _load(self) -> None:
        async with self._turn:
            await self._read()

    async def _until_loaded(self) -> None:
        await self._load()
        again, self._again = self._again, None
        if again is not None:
            again.cancel()
