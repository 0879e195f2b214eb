"""Locks by key within a worker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable
from typing import Generic, TypeVar

from birthmark.broker.model import Done


def until_done() -> tuple[asyncio.Future[None], Done]:
    """Return a future and the callback that completes it with success or an error."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(problem: BaseException | None) -> None:
        if future.done():  # the waiter was cancelled
            return
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)

    return future, done


Key = TypeVar("Key", bound=Hashable)


class KeyedLock(Generic[Key]):
    """Locks by key; a lock exists while it is held or awaited."""

    def __init__(self) -> None:
        self._locks: dict[Key, tuple[asyncio.Lock, int]] = {}

    def __contains__(self, key: Key) -> bool:
        """Return whether the key is locked."""
        return key in self._locks

    @contextlib.asynccontextmanager
    async def lock(self, key: Key) -> AsyncIterator[None]:
        """Hold the key's lock exclusively; waiters are served in order."""
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
