"""Taking turns with whoever else does something to the same thing, on this worker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from typing import Generic, TypeVar

from birthmark.broker.model import Done


def until_done() -> tuple[asyncio.Future[None], Done]:
    """Return a future, and the call that ends it: as it should be, or with why it is not."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(problem: BaseException | None) -> None:
        if future.done():  # whoever waited was cancelled
            return
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)

    return future, done


Key = TypeVar("Key", bound=Hashable)


class KeyedLock(Generic[Key]):
    """Locks by key, there as long as somebody has one or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[Key, tuple[asyncio.Lock, int]] = {}

    def __contains__(self, key: Key) -> bool:
        """Say whether it is somebody's turn."""
        return key in self._locks

    @contextlib.asynccontextmanager
    async def alone_with(self, key: Key) -> AsyncIterator[None]:
        """Wait for whoever came before; nobody else has a turn until this is over."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)
