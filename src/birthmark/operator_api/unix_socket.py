"""Operator API on a Unix socket in the data directory, reachable only with access to that directory.

The health port also serves the operator API on loopback, but any local process can exhaust a port.
"""

import asyncio
import contextlib
import http.client
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

NAME = "operator.sock"
PORT_ALONE = "operator.port"
"""Marker file of a running server without a socket: the health port is exclusively its own."""
_MAX_PATH_BYTES = 100
"""Maximum length of a socket path on all systems."""
_CROWDED_S = 0.02


@contextlib.contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """Yield a path to the socket that fits the kernel's limit, regardless of the directory's path."""
    path = str(directory / NAME)
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def open_door(directory: Path) -> socket.socket:
    """Return the bound socket, accessible only to its owner; a stale socket is replaced. Raise `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _reachable(directory) as path:
            Path(path).unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
    except BaseException:
        sock.close()
        raise
    return sock


class UnixSocketConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket of a directory's server, which must run as the directory's owner."""

    def __init__(self, directory: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._directory = directory

    def connect(self) -> None:
        """Connect to the socket. Raise `OSError` if it is missing or belongs to another user."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            with _reachable(self._directory) as path:
                sock.connect(path)
            _check_owner(sock, self._directory)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


async def connect_socket(directory: Path) -> socket.socket:
    """Return a connected, non-blocking socket. Raise `OSError` as `UnixSocketConnection` does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.0)
        with _reachable(directory) as path:
            while True:
                try:
                    sock.connect(path)
                    break
                except BlockingIOError:  # the backlog is full
                    await asyncio.sleep(_CROWDED_S)
        _check_owner(sock, directory)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_owner(sock: socket.socket, directory: Path) -> None:
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user not in {directory.stat().st_uid, 0}:
        raise PermissionError(f"{directory / NAME} belongs to another user")
