"""Blocking work on a connection in a thread, with an overall deadline.

A socket's timeout applies to each read, so a server that sends single bytes can block a thread indefinitely. The work
therefore has an overall deadline, after which the connection is closed under the thread.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from birthmark import supervised_tasks
from birthmark.device_transports.proxy import ProxyFailedError, proxy_of, tunnel

T = TypeVar("T")


class ConnectionAbort:
    """Aborts a connection from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._is_over = False

    def connect(self, address: tuple[str, int], timeout: Any = None, source_address: Any = None) -> socket.socket:
        """Connect like `socket.create_connection`, through a proxy if the environment names one.

        Raise `OSError` or `ProxyFailedError`.
        """
        host, port = address
        proxy = proxy_of(host, port)
        if proxy is None:
            line = socket.create_connection(address, timeout, source_address)
            self._keep(line)
            return line
        try:
            line = socket.create_connection((proxy.host, proxy.port), timeout, source_address)
        except OSError as error:
            raise ProxyFailedError(proxy=str(proxy), host=host, port=port, reason=error.strerror or error) from error
        self._keep(line)
        try:
            tunnel(line, proxy, host, port)
        except BaseException:
            line.close()
            raise
        return line

    def _keep(self, line: socket.socket) -> None:
        with self._lock:
            # Duplicate the descriptor: TLS takes over the socket's own, and the number of a closed one may be reused.
            self._line = socket.socket(fileno=os.dup(line.fileno()))
            if self._is_over:
                self._end()

    def release(self) -> None:
        """Close this handle; a duplicate that a library holds stays open."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()

    def end(self) -> None:
        """Close the connection, and any that is opened later."""
        with self._lock:
            self._is_over = True
            self._end()

    def _end(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


async def open_connection(seconds: float, host: str, port: int) -> socket.socket:
    """Return a connection to a server, through a proxy if one applies. Raise `OSError` or `ProxyFailedError`."""
    cut = ConnectionAbort()
    try:
        async with asyncio.timeout(seconds):
            line = await supervised_tasks.waiting(partial(cut.connect, (host, port), seconds))
    except BaseException:
        cut.end()
        raise
    cut.release()
    line.settimeout(0)
    return line


async def run_with_deadline(seconds: float, work: Callable[[ConnectionAbort], T]) -> T:
    """Run blocking work in a thread, which connects through the given `ConnectionAbort`. Raise `TimeoutError`."""
    cut = ConnectionAbort()
    try:
        async with asyncio.timeout(seconds):
            return await supervised_tasks.waiting(partial(work, cut))
    finally:
        cut.end()
