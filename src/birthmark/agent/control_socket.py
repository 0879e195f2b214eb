"""Control socket of the process that manages a device's identity, next to its lock.

The agent uses no signals. A signal would end a program with an embedded identity (`agent.embedded_agent`), and an agent
that holds the lock but has no handlers yet. Both answer here, in their event loop, when they are ready.

In: one line, the command's name. Out: `ok` or `no` from the process that received it.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from enum import StrEnum
from pathlib import Path

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 64
_PATIENCE_S = 2.0
_CREDENTIALS = struct.Struct("3i")


class ControlCommand(StrEnum):
    """Commands for the process that manages an identity."""

    STOP = "stop"
    RENEW = "renew"
    REPROVISION = "reprovision"
    FORGET_TIME = "forget-time"


class ControlServer:
    """Queue of received commands; each is consumed once, except for stop, which persists."""

    def __init__(self, *, takes_stop: bool = True) -> None:
        self._given: set[ControlCommand] = set()
        self._news = asyncio.Event()
        self._takes_stop = takes_stop

    def give(self, order: ControlCommand) -> bool:
        """Queue a command; return whether it will be executed."""
        if order is ControlCommand.STOP and not self._takes_stop:
            return False
        self._given.add(order)
        self._news.set()
        return True

    @property
    def is_stopping(self) -> bool:
        return ControlCommand.STOP in self._given

    @property
    def is_any(self) -> bool:
        """Return whether a command is pending."""
        return bool(self._given)

    def take_one(self, order: ControlCommand) -> bool:
        """Return whether this command is pending, and consume it."""
        is_given = order in self._given
        self._given.discard(order)
        return is_given

    def take(self) -> ControlCommand | None:
        for order in (ControlCommand.STOP, ControlCommand.REPROVISION, ControlCommand.RENEW):
            if order in self._given:
                if order is not ControlCommand.STOP:
                    self._given.discard(order)
                return order
        self._news.clear()
        return None

    async def wait(self, seconds: float) -> None:
        """Wait for a command or the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        if not self.is_stopping:  # a pending command must not cause a busy loop
            self._news.clear()


@contextlib.asynccontextmanager
async def answering(path: Path, give: Callable[[ControlCommand], bool]) -> AsyncIterator[None]:
    """Serve commands at `path` during the block. The caller holds the lock, so an existing socket is stale.

    If no socket can be created (full or read-only disk), the identity is managed without it.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.LimitOverrunError):
                line = writer.get_extra_info("socket")
                if _peer(line)[1] in {0, os.geteuid()}:
                    async with asyncio.timeout(_PATIENCE_S):
                        order = ControlCommand((await reader.readline()).decode("ascii", "replace").strip())
                        if not _is_gone(line):
                            writer.write(b"ok\n" if give(order) else b"no\n")
                            await writer.drain()
        finally:
            writer.close()

    with contextlib.ExitStack() as stack:
        door = None
        try:
            door = stack.enter_context(_door(path))
        except OSError as error:
            log.warning("agent.takes_no_orders", extra={"reason": str(error)})
        if door is None:
            yield
            return
        server = await asyncio.start_unix_server(serve, sock=door, limit=_MAX_LINE_BYTES)
        try:
            yield
        finally:
            server.close()


def _is_gone(line: socket.socket) -> bool:
    """Return whether the client has disconnected; this process may have been suspended since."""
    looking = select.poll()
    looking.register(line, select.POLLRDHUP)
    return bool(looking.poll(0))


def ask(path: Path, order: ControlCommand) -> tuple[bool, int]:
    """Send a command; return whether it is executed and by which process.

    Raise `OSError` if no process answers.

    The command is sent only if the peer owns the socket's directory, is root, or is the current user.
    """
    with _open_short_path(path) as near, socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_PATIENCE_S)
        line.connect(near)
        pid, user = _peer(line)
        if user not in {0, os.geteuid(), path.parent.stat().st_uid}:
            raise PermissionError(f"{path} belongs to another user")
        line.sendall(f"{order}\n".encode())
        answer = line.recv(_MAX_LINE_BYTES)
    if not answer:
        raise ConnectionResetError(f"{path} was closed")
    return answer == b"ok\n", pid


@contextlib.contextmanager
def _door(path: Path) -> Iterator[socket.socket]:
    with _open_short_path(path) as near, contextlib.ExitStack() as stack:
        if path.is_socket():
            path.unlink()
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        os.fchmod(door.fileno(), stat.S_IRUSR | stat.S_IWUSR)  # on the descriptor: the path may be another file's
        door.bind(near)
        stack.callback(_remove, path)
        door.setblocking(False)
        yield door


@contextlib.contextmanager
def _open_short_path(path: Path) -> Iterator[str]:
    """Yield a short name for a socket, whose path may exceed the kernel's limit of about 100 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _peer(line: socket.socket) -> tuple[int, int]:
    """Return process ID and user ID of the peer, as reported by the kernel."""
    pid, user, _group = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user
