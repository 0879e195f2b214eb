"""Blocking work on a connection, in a thread, that ends when its time is over.

A socket's timeout counts for each read: a server that drips a byte now and then keeps a thread for as long as it likes.
So the whole has a time, and then the connection is cut below the thread, whatever it is doing.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Cut:
    """Ends one connection from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._is_over = False

    def connect(self, address: tuple[str, int], timeout: Any = None, source_address: Any = None) -> socket.socket:
        """Connect as `socket.create_connection` does."""
        line = socket.create_connection(address, timeout, source_address)
        with self._lock:
            # A number of its own: TLS takes the socket's away, and a closed one's may be another's by then.
            self._line = socket.socket(fileno=os.dup(line.fileno()))
            if self._is_over:
                self._end()
        return line

    def end(self) -> None:
        """Cut the connection, also one that comes later."""
        with self._lock:
            self._is_over = True
            self._end()

    def _end(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


async def bounded(seconds: float, work: Callable[[Cut], T]) -> T:
    """Do blocking work in a thread, which connects by the `Cut` it is given. Raise `TimeoutError`."""
    cut = Cut()
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(work, cut)
    finally:
        cut.end()
