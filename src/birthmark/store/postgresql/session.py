"""A session whose line is given up when nothing comes over it, in seconds instead of a quarter of an hour.

A network that is cut, or a firewall that forgot a flow, tells neither end: without these the kernel goes on sending for
as long as it does by itself.
"""

import socket
from collections.abc import Mapping
from typing import Any

import asyncpg

SILENT_S = 10
_OPTIONS = {
    "TCP_KEEPIDLE": SILENT_S // 2,  # s, without a word
    "TCP_KEEPINTVL": 2,  # s, between two questions
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": SILENT_S * 1000,  # ms, for what was sent and not acknowledged (tcp(7), RFC 5482)
}


class Session(asyncpg.Connection):  # type: ignore[misc] # it has no types
    """asyncpg's connection, over a line that is watched."""

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        line = transport.get_extra_info("socket")
        if line is not None and line.family != socket.AF_UNIX:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _OPTIONS.items():
                if (option := getattr(socket, name, None)) is not None:  # not every system has each
                    line.setsockopt(socket.IPPROTO_TCP, option, value)


OPTIONS: Mapping[str, Any] = {
    "command_timeout": 60,  # s: a server that hangs must not hang us
    "timeout": 5,  # s, until a session begins
    "connection_class": Session,
}
"""How whoever asks PostgreSQL connects."""
