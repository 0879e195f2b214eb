"""Retries during a PostgreSQL outage: a restart takes seconds and stays invisible to clients."""

import asyncio
import os
import socket
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import asyncpg

SILENT_S = 10
_OPTIONS = {
    "TCP_KEEPIDLE": SILENT_S // 2,  # s, idle time
    "TCP_KEEPINTVL": 2,  # s, between probes
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": SILENT_S * 1000,  # ms, for unacknowledged data (tcp(7), RFC 5482)
}


class RetryingSession(asyncpg.Connection):  # type: ignore[misc] # untyped
    """An asyncpg connection whose network connection is monitored."""

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        line = transport.get_extra_info("socket")
        if line is not None and line.family != socket.AF_UNIX:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _OPTIONS.items():
                if (option := getattr(socket, name, None)) is not None:  # not available everywhere
                    line.setsockopt(socket.IPPROTO_TCP, option, value)


OPTIONS: Mapping[str, Any] = {
    "command_timeout": 60,  # s: a hanging server must not block us
    "timeout": 5,  # s, for connecting
    "connection_class": RetryingSession,
}
"""Connection options for PostgreSQL."""


T = TypeVar("T")

PATIENCE_S = 10.0
_FIRST_S, _LONGEST_S = 0.05, 1.0
HEARTBEAT_PAUSE_S = 0.2
"""Longest pause between two attempts to write a heartbeat: other workers wait for it for less than one second."""

TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Errors that the server or the network causes for a request."""

AWAY = (
    asyncpg.PostgresConnectionError,  # also: connection ended midway
    asyncpg.CannotConnectNowError,  # start or stop
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.LockNotAvailableError,  # like the next, sooner
    asyncpg.TransactionRollbackError,  # a deadlock: this transaction was chosen for a restart
    asyncpg.InterfaceError,  # closed connection
    asyncpg.InternalClientError,  # the server announced the end of the connection, and nothing was sent
    OSError,
)
"""Errors of `TROUBLE` that are temporary."""


async def patiently(attempt: Callable[[], Awaitable[T]], longest_s: float = _LONGEST_S) -> T:
    """Return the result of `attempt`; retry for `PATIENCE_S` if the server is unavailable.

    The pauses grow up to about `longest_s`. Only for operations that commit nothing when they fail. Raise the error of
    the last attempt.
    """
    loop = asyncio.get_running_loop()
    begun, number = loop.time(), 0
    while True:
        try:
            return await attempt()
        except AWAY:
            number += 1
            wait = min(_FIRST_S * 2**number, longest_s) * (0.5 + _jitter(number))
            if loop.time() + wait - begun > PATIENCE_S:
                raise
        await asyncio.sleep(wait)


def _jitter(number: int) -> float:
    """Return a fraction that differs between processes, so that they do not all reconnect at once."""
    return zlib.crc32(f"{os.getpid()} {number}".encode()) / 2**32
