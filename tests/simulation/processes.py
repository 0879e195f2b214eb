"""Workers as processes of their own, on the one event loop of a test.

What a worker runs has its name in its context. By that its tasks are known, its timers pass in virtual time, and its
turns are its own; and when it is killed, or stopped, nothing of it goes on. Who is no worker has the loop's own time.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from nats.aio.client import Client as NatsClient
from nats.errors import NoRespondersError

from birthmark.errors import BirthmarkError
from birthmark.net import fair_scheduler, mqtt_driver
from birthmark.store import Changes, Database, Statement
from birthmark.store.database import Batch, Row
from birthmark.store.postgresql.database import PostgresUnavailableError
from birthmark.store.sqlite import SqliteDatabase
from simulation.virtual import Fate, Operation, VirtualTimer, World

T = TypeVar("T")
_WHOSE: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)
_MOST_TURNS = 2000
_ENDS = 20
_LEAST_S = 2e-6  # the clock's own steps are half of it
_LOGS = ("birthmark", "asyncio")


class Process:
    """One incarnation of a worker: what runs in it, and nothing else."""

    def __init__(self, world: "ProcessWorld", name: str) -> None:
        self.world = world
        self.name = name
        self.tasks: set[asyncio.Task[Any]] = set()
        self.line = VirtualNats(self)
        self._of_loops: dict[type, Any] = {}
        self._context = contextvars.copy_context()
        self._context.run(_WHOSE.set, self)
        world.processes[name] = self

    def call(self, act: Callable[[], T]) -> T:
        """Run something in this worker."""
        return self._context.copy().run(act)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin something in this worker."""
        return self.call(lambda: asyncio.get_running_loop().create_task(work))

    async def end(self) -> None:
        """Let go of everything that was frozen when it was killed."""
        for _ in range(_ENDS):
            if not (left := [task for task in self.tasks if not task.done()]):
                return
            for task in left:
                task.cancel()
            await self.world.settle()


class ProcessWorld(World):
    """Time, and what waits, of workers that are processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: dict[str, Process] = {}
        self.mistakes: list[str] = []
        """What no worker should log."""

    def is_alive(self, worker: str) -> bool:
        return worker in self.processes

    def kill(self, worker: str) -> None:
        self.processes.pop(worker, None)
        super().kill(worker)

    def trouble(self, fate: Fate) -> BirthmarkError:
        return PostgresUnavailableError(reason=fate.value, may_be_kept=fate is Fate.ANSWER_LOST)

    async def settle(self) -> None:
        """Let everybody run until they wait."""
        ready = cast("Any", asyncio.get_running_loop())._ready
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("somebody runs and never waits")

    async def happen(self, operation: Operation, fate: Fate = Fate.DONE) -> None:
        operation.future.add_done_callback(_ignore_result)
        await super().happen(operation, fate)

    @contextlib.contextmanager
    def on_this_loop(self) -> Iterator[None]:
        """Have the running loop tell workers the time, and measure no work."""
        loop = cast("Any", asyncio.get_running_loop())
        right_time, right_call_at = loop.time, loop.call_at

        def time() -> float:
            return right_time() if _WHOSE.get() is None else self.clock.monotonic()

        def call_at(when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
            context = context or contextvars.copy_context()
            whose: Process | None = context.get(_WHOSE)
            if whose is None:
                return right_call_at(when, callback, *args, context=context)
            timer = asyncio.TimerHandle(when, callback, args, loop, context)
            self.call_later(whose.name, when - self.clock.monotonic(), partial(_unless_cancelled, timer))
            return timer

        def begun(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
            task = asyncio.Task(work, loop=loop, **more)
            if (whose := _WHOSE.get()) is not None:
                whose.tasks.add(task)
                task.add_done_callback(whose.tasks.discard)
            return task

        mistakes = _Mistakes(self.mistakes)
        for name in _LOGS:
            logging.getLogger(name).addHandler(mistakes)
        loop.set_task_factory(begun)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "time", time)
            patch.setattr(loop, "call_at", call_at)
            for kind in (fair_scheduler.Backlog, mqtt_driver._TickFlush):
                patch.setattr(kind, "_of_loops", _OfProcesses(kind, kind._of_loops))
            for module in (fair_scheduler, mqtt_driver):
                patch.setattr(module, "now", lambda: 0.0)
            try:
                yield
            finally:
                loop.set_task_factory(None)
                for name in _LOGS:
                    logging.getLogger(name).removeHandler(mistakes)

    def call_later(self, worker: str, delay_s: float, act: Callable[[], object]) -> VirtualTimer:
        """Call it later; never at this very moment, which would not end for who looks again at what is almost due."""
        return super().call_later(worker, max(_LEAST_S, delay_s), act)


class _OfProcesses:
    """What there is once for each loop, once for each worker."""

    def __init__(self, kind: type, others: Any) -> None:
        self._kind = kind
        self._others = others

    def get(self, loop: asyncio.AbstractEventLoop) -> Any:
        whose = _WHOSE.get()
        return self._others.get(loop) if whose is None else whose._of_loops.get(self._kind)

    def __setitem__(self, loop: asyncio.AbstractEventLoop, made: Any) -> None:
        if (whose := _WHOSE.get()) is None:
            self._others[loop] = made
        else:
            whose._of_loops[self._kind] = made


class _Mistakes(logging.Handler):
    """Keeps what was logged with a traceback: a mistake of ours."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:  # asyncio says False of a task of a killed worker, which is destroyed while it waits
            self._kept.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


class GatedEngine:
    """A worker's engine of the database: each read waits for its turn, and each write of its group commit.

    So what answers for a commit is the product's own: who hears of it, and what is owed to other workers first.
    """

    def __init__(self, world: World, worker: str, inner: Database) -> None:
        self._world = world
        self._worker = worker
        self._inner = inner
        self._group = cast("Any", inner)._group
        self._write: Callable[[Batch], Awaitable[Any]] = self._group._run
        self._group._run = self._gated

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _gated(self, batch: Batch) -> "asyncio.Future[Any]":
        return self._world.ask_for(self._worker, "commit", lambda: self._write(batch))

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        return await self._world.ask_for(self._worker, "read", lambda: self._inner.one(statement, **params))

    async def all(self, statement: Statement, /, **params: Any) -> Any:
        return await self._world.ask_for(self._worker, "read", lambda: self._inner.all(statement, **params))

    async def read_in_background(self, statement: Statement, /, **params: Any) -> Any:
        return await self.all(statement, **params)

    async def events_after(self, last: int, limit: int) -> Any:
        return await self._world.ask_for(self._worker, "read", lambda: self._inner.events_after(last, limit))

    async def write_outside_batch(self, statement: Statement, /, **params: Any) -> bool:
        """Write on a connection of its own, as PostgreSQL has one for signs of life, and SQLite has none."""
        if not isinstance(self._inner, SqliteDatabase):
            return bool(
                await self._world.ask_for(
                    self._worker, "beside", lambda: self._inner.write_outside_batch(statement, **params)
                )
            )
        changes = Changes().run(statement, expect=1, **params)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (problem,) = await self._world.ask_for(self._worker, "beside", lambda: self._write([(changes, told)]))
        return problem is None


class VirtualNats:
    """One worker's connection to NATS: what one worker sends another comes in its order, late, or never."""

    is_connected = True

    def __init__(self, process: Process) -> None:
        self._process = process
        self._hearers: dict[str, Callable[[Any], Awaitable[None]]] = {}

    @property
    def as_client(self) -> NatsClient:
        return cast("NatsClient", self)

    async def subscribe(self, subject: str, cb: Callable[[Any], Awaitable[None]]) -> None:
        self._hearers[subject] = cb

    async def flush(self) -> None: ...

    async def publish(self, subject: str, data: bytes) -> None:
        for there in self._who_hears(subject):
            self._carry(there, partial(there.line._come, subject, _Message(self, there, data)))

    async def request(self, subject: str, data: bytes, timeout: float) -> "_Message":
        answered: asyncio.Future[_Message] = asyncio.get_running_loop().create_future()
        if not (found := self._who_hears(subject)):
            raise NoRespondersError
        for there in found:
            self._carry(there, partial(there.line._come, subject, _Message(self, there, data, answered)))
        async with asyncio.timeout(timeout):
            return await answered

    def _who_hears(self, subject: str) -> list[Process]:
        others = [one for one in self._process.world.processes.values() if one is not self._process]
        return [one for one in others if subject in one.line._hearers]

    def _carry(self, there: Process, act: Callable[[], Awaitable[None]]) -> None:
        world, between = self._process.world, (self._process.name, there.name)
        world.ask_for(there.name, "bus", act, between).add_done_callback(_ignore_result)

    async def _come(self, subject: str, message: "_Message") -> None:
        async def heard() -> None:
            await self._hearers[subject](message)

        self._process.spawn(heard())

    async def _give(self, message: "_Message", answered: "asyncio.Future[_Message]") -> None:
        if not answered.done():
            answered.set_result(message)


class _Message:
    """What came, and the way back to who sent it."""

    def __init__(
        self, sender: VirtualNats, at: Process, data: bytes, answered: "asyncio.Future[_Message] | None" = None
    ) -> None:
        self.data = data
        self._sender = sender
        self._at = at
        self._answered = answered

    async def respond(self, data: bytes) -> None:
        assert self._answered is not None
        back = _Message(self._at.line, self._sender._process, data)
        self._at.line._carry(self._sender._process, partial(self._sender._give, back, self._answered))


def _unless_cancelled(timer: asyncio.TimerHandle) -> None:
    if not timer.cancelled():
        timer._run()


def _ignore_result(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()
