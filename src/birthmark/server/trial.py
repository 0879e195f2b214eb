"""A server for tests: its data is nobody's, and one word makes it as new again, in the same process and place.

What is begun again is everything but the process: connections and sessions, what rooms remember, tokens, limits, and
what was written. CA, keys and credentials are those of the first start, so that what a client was told stays true.
"""

import asyncio
import ipaddress
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from birthmark import durable
from birthmark.clock import Entropy, SystemClock, SystemEntropy
from birthmark.server.run import collect_seldom
from birthmark.server.server import Server
from birthmark.server.settings import Settings

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it: nothing there waits for a disk
_FIRST = 0x7F100000  # 127.16.0.0 and up: whoever names an address by hand takes a lower one
_ADDRESSES = 0xE00000
_TRIES = 200
_KEPT = (".lock", ".sock")
_PREFIX = "birthmark-test"
_LONGEST = 64


def free_address(ports: Iterable[int], entropy: Entropy) -> str:
    """Return a loopback address on which these ports are free; any, whose start tells more, where none is found."""
    wanted = sorted(set(ports) - {0})
    for _ in range(_TRIES):
        address = str(ipaddress.ip_address(_FIRST + int.from_bytes(entropy.token(4)) % _ADDRESSES))
        with ExitStack() as stack:
            try:
                for port in wanted:
                    stack.enter_context(socket.socket()).bind((address, port))
            except OSError:
                continue
            break
    return address


@contextmanager
def directory() -> Iterator[Path]:
    """Give a directory that goes at the end, in memory where there is some; what killed runs left goes first."""
    parent = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
    with durable.directory_beside(parent, _PREFIX) as made:
        yield made


class TrialServer:
    """See the module. `settings` name a directory of its own, and SQLite in it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._server: Server | None = None
        self._new: dict[Path, _Kept] = {}

    async def start(self) -> dict[str, Any]:
        """Start for the first time, and return the endpoints."""
        await self._begin()
        await self.stop()  # so that nothing of it is in memory alone
        self._new = {path: _Kept.of(path) for path in _files(self.settings.directory)}
        return await self._begin()

    async def reset(self) -> dict[str, Any]:
        """End every connection, forget everything since `start`, and return the endpoints, which are the same."""
        await self.stop()
        here = set(_files(self.settings.directory))
        for path in here - self._new.keys():
            path.unlink()
        for path, kept in self._new.items():
            kept.put_back(path)
        return await self._begin()

    async def stop(self) -> None:
        """End it; what it wrote stays."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def _begin(self) -> dict[str, Any]:
        self._server = Server(self.settings, SystemClock(), SystemEntropy(), waits_for_peers=False)
        return await self._server.start()


class _Kept:
    """A file as it was: what says whether it was written since, its mode, and its bytes."""

    __slots__ = ("_bytes", "_mode", "_seen")

    def __init__(self, content: bytes, mode: int, seen: tuple[int, ...]) -> None:
        self._bytes, self._mode, self._seen = content, mode, seen

    @classmethod
    def of(cls, path: Path) -> "_Kept":
        found = path.stat()
        return cls(path.read_bytes(), stat.S_IMODE(found.st_mode), _seen(found))

    def put_back(self, path: Path) -> None:
        try:
            if _seen(path.lstat()) == self._seen:
                return
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        durable.put(path, self._bytes, self._mode)
        self._seen = _seen(path.stat())


def _seen(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _files(place: Path) -> Iterator[Path]:
    """Yield what is to be put back or removed: locks and sockets are whoever's who runs."""
    for parent, _, names in os.walk(place):
        for name in names:
            if not name.endswith(_KEPT):
                yield Path(parent, name)


def run_trial(settings: Settings, say: Callable[[Mapping[str, Any]], None]) -> None:
    """Serve, and begin again at each line `reset` of the standard input; `say` gets the endpoints each time.

    It ends with its input, where somebody is there to end that, and at SIGTERM or SIGINT.
    """

    async def main() -> None:
        trial, loop = TrialServer(settings), asyncio.get_running_loop()
        words: asyncio.Queue[bytes] = asyncio.Queue()  # empty: the end
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, words.put_nowait, b"")
        try:
            say(await trial.start())
            collect_seldom()
            if _is_somebodys(sys.stdin.fileno()):
                await loop.connect_read_pipe(lambda: _Lines(words), sys.stdin)
            while word := await words.get():
                if word.strip() == b"reset":
                    say(await trial.reset())
        finally:
            await trial.stop()

    uvloop.run(main())


class _Lines(asyncio.Protocol):
    """Gives each line that is read, and an empty one at the end."""

    def __init__(self, words: "asyncio.Queue[bytes]") -> None:
        self._words, self._begun = words, b""

    def data_received(self, data: bytes) -> None:
        *lines, self._begun = (self._begun[-_LONGEST:] + data).split(b"\n")
        for line in lines:
            self._words.put_nowait(line + b"\n")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._words.put_nowait(b"")


def _is_somebodys(descriptor: int) -> bool:
    """Say whether an input is one that somebody writes to: /dev/null, as shells give their jobs, has ended already."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
