"""A server for tests: its data is nobody's, and one word makes it as new again, in the same process and place.

What is begun again is everything but the process: connections and sessions, what rooms remember, tokens, limits, and
what was written. CA, keys and credentials are those of the first start, so that what a client was told stays true.

Its clock may be off, its line cut, and its limits used up: faults that a device meets as it would meet them elsewhere.
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
from birthmark.clock import MICROSECOND, Entropy, SystemClock, SystemEntropy
from birthmark.server.composition_root import Rooms
from birthmark.server.fault_proxy import FaultProxy, LineState
from birthmark.server.run import collect_seldom
from birthmark.server.server import Server
from birthmark.server.settings import Settings
from birthmark.supervised_tasks import ended, kept

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it: nothing there waits for a disk
_ROOM = 32 * 1024 * 1024
_FIRST = 0x7F100000  # 127.16.0.0 and up: whoever names an address by hand takes a lower one
_ADDRESSES = 0xE00000
_TRIES = 200
_KEPT = (".lock", ".sock")
_PREFIX = "birthmark-test"
_LONGEST = 16 * 1024
_REMEMBERED = 10_000
_LOOK_S = 5.0


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
    """Give a directory that goes at the end, in memory where there is room; what killed runs left goes first."""
    is_roomy = os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    parent = _MEMORY if is_roomy else Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
    with atomic_files.directory_beside(parent, _PREFIX) as made:
        yield made


class TrialClock(SystemClock):
    """The machine's clocks, where the wall clock is off by `ahead`."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def micros(self) -> int:
        return super().micros() + self.ahead // MICROSECOND


class EndRequest:
    """Whether a server for tests is to end at once: it was told so, or nobody asks it any more and reads answers."""

    def __init__(self) -> None:
        self.is_told = self.is_input_over = False

    @property
    def is_now(self) -> bool:
        return self.is_told or (self.is_input_over and _is_unread(sys.stdout.fileno()))


class TrialServer:
    """See the module. `settings` name a directory of its own, and SQLite in it.

    `behind` is a second address, where it listens while its line may be cut.
    """

    def __init__(self, settings: Settings, behind: str | None = None) -> None:
        # Its certificate has both addresses from the beginning, so that it stays the same.
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
    def rooms(self) -> Rooms:
        """What it serves, until the next reset."""
        if self._server is None:
            raise RuntimeError("it does not run")
        return self._server.rooms

    @property
    def is_ending(self) -> bool:
        """Whether it is to end as soon as it can: no word waits for anything then."""
        return self.ending.is_now

    async def start(self) -> dict[str, Any]:
        """Start for the first time, and return the endpoints."""
        await self._begin()
        await self.stop()  # so that nothing of it is in memory alone
        self._new = {path: _FileSnapshot.of(path) for path in _files(self.settings.directory)}
        self._places = _directories(self.settings.directory)
        return await self._begin()

    async def reset(self) -> dict[str, Any]:
        """End every connection, forget everything since `start`, and return the endpoints, which are the same."""
        await self.stop()
        self.clock.ahead = timedelta()
        self._published.clear()
        self._used_up.clear()
        here = set(_files(self.settings.directory))
        for path in here - self._new.keys():
            path.unlink(missing_ok=True)
        for place in _directories(self.settings.directory) - self._places:
            shutil.rmtree(place, ignore_errors=True)  # one that is in another is gone with it
        for path, before in self._new.items():
            before.put_back(path)
        return await self._begin()

    async def stop(self) -> None:
        """End it, its line too; what it wrote stays."""
        if self._watching is not None:
            await ended(self._watching)
            self._watching = None
        if self._line is not None:
            line, self._line = self._line, None
            await line.close()
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def set_line(self, state: LineState, after_bytes: int = 0) -> None:
        """Have what devices say go over a line, which takes a state; see `LineState`.

        The first time the server begins again behind it: connections end, everything else stays.
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
            await self._begin(behind)  # by the right clock: what it makes at a start, such as its certificate, is valid
            self.clock.ahead = ahead
            if is_watched:
                self.watch()
            for at, duration, is_day in self._used_up:
                left = duration - timedelta(seconds=self.clock.monotonic() - at)
                self._use_up(max(left, timedelta()), is_day=is_day)
            self._line = FaultProxy(front, self._behind)
            await self._line.lay([p for p in (bound.mqtt, bound.https, bound.https_also, bound.est, bound.pki) if p])
        await self._line.become(state, after_bytes)

    def set_clock(self, ahead: timedelta) -> None:
        """Put its clock off."""
        self.clock.ahead = ahead

    def use_up(self, duration: timedelta, *, is_day: bool = False) -> None:
        """Use up what the tiers of its hubs and provisioning services take for so long, as others of them would.

        With `is_day` also the messages of the day. Where none has a tier nothing is limited.
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

    def watch(self) -> None:
        """Remember what is published at AWS from now on, but for topics that begin with $."""
        if self._watching is None:
            self._watching = kept("what a test looks at", self._remember)

    @property
    def published(self) -> tuple[BrokerMessage, ...]:
        """What was published since `watch`, the latest ten thousand."""
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
    """A file as it was: what says whether it was written since, its mode, and its bytes."""

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


def _seen(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _files(place: Path) -> Iterator[Path]:
    """Yield what is to be put back or removed: locks and sockets are whoever's who runs."""
    for parent, _, names in os.walk(place):
        for name in names:
            if not name.endswith(_KEPT):
                yield Path(parent, name)


def _directories(place: Path) -> set[Path]:
    return {Path(parent) for parent, _, _ in os.walk(place)}


Answer = Callable[[TrialServer, bytes], Awaitable[Mapping[str, Any]]]
"""What a line of the input asks, done; raises nothing."""
_RESET = b"reset"
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last: its terminal was closed


def run_trial(
    settings: Settings,
    behind: str,
    answer: Answer,
    say: Callable[[Mapping[str, Any]], None],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Serve, and do what each line of the standard input asks.

    `say` gets the endpoints, at first and at each line `reset`; `tell` what `answer` returns for any other.
    It ends with its input, where somebody is there to end that, when the lines before are answered: with them, where
    nobody reads any more. At a signal it ends at once.
    """

    async def main() -> None:
        trial, loop = TrialServer(settings, behind), asyncio.get_running_loop()
        lines: asyncio.Queue[bytes] = asyncio.Queue()  # empty: the end

        def end() -> None:
            trial.ending.is_told = True
            lines.put_nowait(b"")

        for number in _ENDS:
            loop.add_signal_handler(number, end)
        try:
            say(await trial.start())
            collect_seldom()
            if _is_somebodys(sys.stdin.fileno()):
                await loop.connect_read_pipe(lambda: _LineReader(lines, trial.ending), sys.stdin)
            while (line := await lines.get()) and not trial.is_ending:
                if word := line.strip():
                    found = await answer(trial, word)
                    if trial.is_ending:
                        break
                    (say if word == _RESET else tell)(found)
        finally:
            await trial.stop()
            for number in _ENDS:  # a second one, while the directory goes
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    uvloop.run(main())


class _LineReader(asyncio.Protocol):
    """Gives each line that is read, a long one cut, the last one without a line end too, and an empty one at the end.

    A lone CR ends a line as well, and what some editors of Windows begin a text with is no part of the first.
    """

    def __init__(self, words: "asyncio.Queue[bytes]", ending: "EndRequest") -> None:
        self._words, self._begun, self._ending = words, b"", ending

    def data_received(self, data: bytes) -> None:
        *lines, begun = (self._begun + data).replace(b"\r", b"\n").split(b"\n")
        self._begun = begun[:_LONGEST]  # so much of a line that is too long says that it is no word
        for line in lines:
            self._words.put_nowait(line.removeprefix(codecs.BOM_UTF8)[:_LONGEST] + b"\n")

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._begun:
            self.data_received(b"\n")
        self._ending.is_input_over = True
        self._words.put_nowait(b"")


def _is_unread(descriptor: int) -> bool:
    """Say whether an output is a pipe whose reader has gone."""
    looking = select.poll()
    looking.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in looking.poll(0))


def _is_somebodys(descriptor: int) -> bool:
    """Say whether an input is one that somebody writes to: /dev/null, as shells give their jobs, has ended already."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
