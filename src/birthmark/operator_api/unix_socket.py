"""The operator's own door: a Unix socket in the data directory, which nobody who cannot enter that can reach or fill.

The health port serves the operator interface too, on loopback; but whoever may connect to a port may also fill it.
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
"""What stands there while a server runs that could make no door: the health port is its own, and nobody else's."""
_MAX_PATH_BYTES = 100
"""What fits into a socket's address everywhere."""
_CROWDED_S = 0.02


@contextlib.contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """Give a path to the socket that is short enough for the kernel, however long the directory's is."""
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
    """Return the bound socket, for its owner alone; one that a killed server left makes room. Raise `OSError`."""
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


class DoorConnection(http.client.HTTPConnection):
    """HTTP by the door of a directory's server, whose owner alone may stand behind it."""

    def __init__(self, directory: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._directory = directory

    def connect(self) -> None:
        """Raise `OSError` where there is no such door, or it is somebody else's."""
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


async def reached(directory: Path) -> socket.socket:
    """Return a socket that is connected to the door and never blocks. Raise `OSError` as `DoorConnection` does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.0)
        with _reachable(directory) as path:
            while True:
                try:
                    sock.connect(path)
                    break
                except BlockingIOError:  # so many stand there already
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
