"""A server for tests, with disposable data and a reset that keeps process and addresses.

A reset restores everything except the process: connections and sessions, service state, tokens, limits, and files. The
CA, keys and credentials of the first start remain, so that what clients already know stays valid.

Faults include a wrong clock, a cut connection, and exhausted quotas. A device meets them as it would in production.
"""

import asyncio
import codecs
import ipaddress
import os
import select
import shutil
import signal
import socket
import stat
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from msgspec.structs import replace

from birthmark import atomic_files
from birthmark.broker.model import BrokerMessage
from birthmark.clock_and_entropy import MICROSECOND, Entropy, SystemClock, SystemEntropy
from birthmark.server.composition_root import ServerServices
from birthmark.server.fault_proxy import FaultProxy, LineState
from birthmark.server.server import Server
from birthmark.server.server_process import reduce_gc_frequency
from birthmark.server.settings import Settings
from birthmark.supervised_tasks import cancel_and_wait, start_supervised

_MEMORY = Path("/dev/shm")  # noqa: S108 - its temporary directory never waits for a disk
_ROOM = 32 * 1024 * 1024
_FIRST = 0x7F100000  # 127.16.0.0 and up: addresses chosen by hand are lower
_ADDRESSES = 0xE00000
_TRIES = 200
_KEPT = (".lock", ".sock")
_PREFIX = "birthmark-test"
_LONGEST = 16 * 1024
_REMEMBERED = 10_000
_LOOK_S = 5.0


def find_free_address(ports: Iterable[int], entropy: Entropy) -> str:
    """Return a loopback address on which these ports are free.

    If none is found, return any address; the start then reports the error.
    """
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
def create_temporary_directory() -> Iterator[Path]:
    """Yield a temporary directory, in memory if space permits, and delete it afterwards.

    Directories that killed runs left behind are deleted first.
    """
    is_roomy = os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    parent = _MEMORY if is_roomy else Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
    with atomic_files.private_directory(parent, _PREFIX) as made:
        yield made


class TrialClock(SystemClock):
    """The machine's clocks, with the wall clock shifted by `ahead`."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def micros(self) -> int:
        return super().micros() + self.ahead // MICROSECOND


class EndRequest:
    """A shutdown request for a test server.

    It is explicit, or implied when the server's input is closed and its output has no reader.
    """

    def __init__(self) -> None:
        self.is_told = self.is_input_over = False

    @property
    def is_now(self) -> bool:
        return self.is_told or (self.is_input_over and _is_unread(sys.stdout.fileno()))


class TrialServer:
    """A server for tests. `settings` name a directory for it alone, with a SQLite database in it.

    `behind` is a second address, on which the server listens if its connection can be cut.
    """

    def __init__(self, settings: Settings, behind: str | None = None) -> None:
        # Its certificate has both addresses from the start, so that it never changes.
        self.settings = settings if behind is None else replace(settings, names=(*settings.names, behind))
        self.clock = TrialClock()
        self._behind = behind
        self._server: Server | None = None
        self._new: dict[Path, _FileSnapshot] = {}
        self._places: set[Path] = set()
        self._line: FaultProxy | None = None
        self._watching: asyncio.Task[None] | None = None
        self._published: deque[BrokerMessage] = deque(maxlen=_REMEMBERED)
        self._used_up: list[tuple[float, timedelta, bool]] = []
        self.ending = EndRequest()

    @property
    def rooms(self) -> ServerServices:
        """The services of the current run, valid until the next reset."""
        if self._server is None:
            raise RuntimeError("it does not run")
        return self._server.rooms

    @property
    def is_ending(self) -> bool:
        """Whether the server stops as soon as possible, without waiting for any request."""
        return self.ending.is_now

    async def start(self) -> dict[str, Any]:
        """Start for the first time, and return the endpoints."""
        await self._begin()
        await self.stop()  # so that no state is only in memory
        self._new = {path: _FileSnapshot.of(path) for path in _iter_resettable_files(self.settings.directory)}
        self._places = _directories(self.settings.directory)
        return await self._begin()

    async def reset(self) -> dict[str, Any]:
        """Close every connection, discard all changes since `start`, and return the unchanged endpoints."""
        await self.stop()
        self.clock.ahead = timedelta()
        self._published.clear()
        self._used_up.clear()
        here = set(_iter_resettable_files(self.settings.directory))
        for path in here - self._new.keys():
            path.unlink(missing_ok=True)
        for place in _directories(self.settings.directory) - self._places:
            shutil.rmtree(place, ignore_errors=True)  # nested ones are already gone
        for path, before in self._new.items():
            before.put_back(path)
        return await self._begin()

    async def stop(self) -> None:
        """Stop the server and its fault proxy; its files remain."""
        if self._watching is not None:
            await cancel_and_wait(self._watching)
            self._watching = None
        if self._line is not None:
            line, self._line = self._line, None
            await line.close()
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def set_line(self, state: LineState, after_bytes: int = 0) -> None:
        """Route device connections through a fault proxy and set its state; see `LineState`.

        The first call restarts the server behind the proxy: connections close, and everything remains otherwise.
        """
        if self._line is None:
            if self._behind is None:
                raise RuntimeError("it has no second address")
            bound, told, is_watched = self.settings.bound, self.settings, self._watching is not None
            await self.stop()
            front = told.listen[0]
            behind = replace(
                told,
                listen=(self._behind,),
                host=told.host_name,
                names=(*told.names, *told.listen),
                health_listen=(front,),
            )
            ahead, self.clock.ahead = self.clock.ahead, timedelta()
            await self._begin(behind)  # at real time, so that certificates created at start are valid
            self.clock.ahead = ahead
            if is_watched:
                self.start_recording()
            for at, duration, is_day in self._used_up:
                left = duration - timedelta(seconds=self.clock.monotonic() - at)
                self._use_up(max(left, timedelta()), is_day=is_day)
            self._line = FaultProxy(front, self._behind)
            await self._line.bind_ports(
                [p for p in (bound.mqtt, bound.https, bound.https_also, bound.est, bound.pki, bound.amqps) if p]
            )
        await self._line.set_state(state, after_bytes)

    def set_clock(self, ahead: timedelta) -> None:
        """Shift the server's wall clock by `ahead`."""
        self.clock.ahead = ahead

    def exhaust_quotas(self, duration: timedelta, *, is_day: bool = False) -> None:
        """Consume the quotas of the tiers of its hubs and provisioning services for `duration`, as other clients would.

        With `is_day`, consume the daily message quota as well. Instances without a tier are not limited.
        """
        self._used_up.append((self.clock.monotonic(), duration, is_day))
        self._use_up(duration, is_day=is_day)

    def _use_up(self, duration: timedelta, *, is_day: bool) -> None:
        now, rooms = self.clock.monotonic(), self.rooms
        for hub in rooms.iothub.hubs.all():
            if (throttle := rooms.iothub.throttles.of(hub.name)) is not None:
                if duration:
                    throttle.use_up(now, duration.total_seconds())
                if is_day:
                    throttle.use_up_day(self.clock.now().date())
        for instance in rooms.instances.all() if duration else ():
            rooms.instances.paces.use_up(instance.name, now, duration.total_seconds())

    def start_recording(self) -> None:
        """Start to record messages published to AWS IoT, except on topics that begin with `$`."""
        if self._watching is None:
            self._watching = start_supervised("message recording", self._remember)

    @property
    def published(self) -> tuple[BrokerMessage, ...]:
        """Messages published since `watch`; at most the latest 10,000."""
        return tuple(self._published)

    async def _remember(self) -> None:
        with self.rooms.aws_connections.space.messages.watch("#") as viewer:
            while True:
                messages, _lost = await viewer.take(_LOOK_S)
                self._published.extend(messages)

    async def _begin(self, settings: Settings | None = None) -> dict[str, Any]:
        self._server = Server(settings or self.settings, self.clock, SystemEntropy(), waits_for_peers=False)
        return await self._server.start()


class _FileSnapshot:
    """A snapshot of a file: modification stamp, mode and content."""

    __slots__ = ("_bytes", "_mode", "_seen")

    def __init__(self, content: bytes, mode: int, seen: tuple[int, ...]) -> None:
        self._bytes, self._mode, self._seen = content, mode, seen

    @classmethod
    def of(cls, path: Path) -> "_FileSnapshot":
        found = path.stat()
        return cls(path.read_bytes(), stat.S_IMODE(found.st_mode), _seen(found))

    def put_back(self, path: Path) -> None:
        try:
            if _seen(path.lstat()) == self._seen:
                return
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_files.put(path, self._bytes, self._mode)
        self._seen = _seen(path.stat())


def _seen(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def _iter_resettable_files(path: Path) -> Iterator[Path]:
    """Yield the files that a reset restores or deletes; locks and sockets belong to the running process."""
    for parent, _, names in os.walk(path):
        for name in names:
            if not name.endswith(_KEPT):
                yield Path(parent, name)


def _directories(path: Path) -> set[Path]:
    return {Path(parent) for parent, _, _ in os.walk(path)}


Answer = Callable[[TrialServer, bytes], Awaitable[Mapping[str, Any]]]
"""Handler of one input line; never raises."""
_RESET = b"reset"
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last: terminal closed


def run_trial(
    settings: Settings,
    behind: str,
    answer: Answer,
    say: Callable[[Mapping[str, Any]], None],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Serve, and process each line of the standard input.

    `say` receives the endpoints, at the start and after each `reset` line; `tell` receives the result of `answer` for
    any other line. If another process controls the input, the server stops when the input ends and earlier lines are
    answered, or when its output has no reader. A signal stops it immediately.
    """

    async def main() -> None:
        trial, loop = TrialServer(settings, behind), asyncio.get_running_loop()
        lines: asyncio.Queue[bytes] = asyncio.Queue()  # empty: end

        def end() -> None:
            trial.ending.is_told = True
            lines.put_nowait(b"")

        for number in _ENDS:
            loop.add_signal_handler(number, end)
        try:
            say(await trial.start())
            reduce_gc_frequency()
            if _has_writer(sys.stdin.fileno()):
                await loop.connect_read_pipe(lambda: _LineReader(lines, trial.ending), sys.stdin)
            while (line := await lines.get()) and not trial.is_ending:
                if word := line.strip():
                    found = await answer(trial, word)
                    if trial.is_ending:
                        break
                    (say if word == _RESET else tell)(found)
        finally:
            await trial.stop()
            for number in _ENDS:  # a second signal during the removal
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    uvloop.run(main())


class _LineReader(asyncio.Protocol):
    """Splits the input into lines.

    Long lines are truncated, a final line needs no line end, and the end of input yields an empty line. A lone CR also
    ends a line, and a byte order mark before the first line is removed.
    """

    def __init__(self, words: "asyncio.Queue[bytes]", ending: "EndRequest") -> None:
        self._words, self._begun, self._ending = words, b"", ending

    def data_received(self, data: bytes) -> None:
        *lines, begun = (self._begun + data).replace(b"\r", b"\n").split(b"\n")
        self._begun = begun[:_LONGEST]  # enough of an overlong line to show that it is invalid
        for line in lines:
            self._words.put_nowait(line.removeprefix(codecs.BOM_UTF8)[:_LONGEST] + b"\n")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._begun:
            self.data_received(b"\n")
        self._ending.is_input_over = True
        self._words.put_nowait(b"")


def _is_unread(descriptor: int) -> bool:
    """Return whether an output is a pipe without a reader."""
    looking = select.poll()
    looking.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in looking.poll(0))


def _has_writer(descriptor: int) -> bool:
    """Return whether an input has a writer: a pipe, a socket or a terminal.

    Input such as /dev/null, which shells give to background jobs, has already ended.
    """
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
