"""Workers in virtual time: every read, write and message between them waits until the test lets it happen.

One real database, one process, several brokers. An operation is an effect: it is asked for, it happens, its answer
arrives. Between any two of these a worker may be stopped or killed, and messages may be lost or late.
"""

import asyncio
import heapq
import itertools
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any

from birthmark.bus.local import LatestVersions
from birthmark.bus.ports import ASK_S, BusRequest, NoAnswerError, R, WorkerUnreachableError
from birthmark.errors import BirthmarkError
from birthmark.store import Changes, Database, Event, Statement
from birthmark.store.database import Hear, Heard, Row, SharedDatabase
from birthmark.store.event_base_and_codec import E, decode_event, kind_of
from birthmark.store.sqlite import DatabaseUnavailableError
from simulation.confirming import confirmed_by
from support.fakes import FakeClock

log = logging.getLogger(__name__)
_TURNS = 12
AGAIN_S = 0.3
PAUSE_S = 0.1


class Fate(Enum):
    """What becomes of an operation."""

    DONE = "done"
    ANSWER_LOST = "answer lost"
    LOST = "lost"


class Operation:
    """Something a worker asked for."""

    def __init__(
        self, worker: str, what: str, act: Callable[[], Awaitable[Any]], future: "asyncio.Future[Any]", line: object
    ) -> None:
        self.worker = worker
        self.what = what
        self.act = act
        self.future = future
        self.line = line
        self.asker = asyncio.current_task()

    def __repr__(self) -> str:
        return f"{self.worker}:{self.what}"


class World:
    """What all workers share: time, and the operations that wait."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pending: list[Operation] = []
        self.busy = 0
        self.stopped: set[str] = set()
        self.buses: dict[str, VirtualBus] = {}
        self.revoked: set[str] = set()  # as the database has it
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._numbers = itertools.count()

    def is_alive(self, worker: str) -> bool:
        """Say whether a worker was not killed."""
        return worker in self.buses

    def ask_for(
        self, worker: str, what: str, act: Callable[[], Awaitable[Any]], line: object = None
    ) -> "asyncio.Future[Any]":
        """Let an operation wait for its turn, and for those of the same line that were asked for before it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_alive(worker):
            self.pending.append(Operation(worker, what, act, future, line))
        return future

    def ready(self) -> list[Operation]:
        """Return what could happen next."""
        found, seen = [], set[object]()
        for operation in self.pending:
            if operation.worker in self.stopped or (operation.line is not None and operation.line in seen):
                continue
            seen.add(operation.line)
            found.append(operation)
        return found

    def trouble(self, fate: Fate) -> BirthmarkError:
        """Return what the worker hears of an operation that was lost, or whose answer was."""
        return DatabaseUnavailableError(where="simulated", reason=fate.value)

    async def happen(self, operation: Operation, fate: Fate = Fate.DONE) -> None:
        """Let an operation happen, or not, and its answer arrive, or not."""
        self.pending.remove(operation)
        self.busy += 1
        result: object = None
        problem: BirthmarkError | None = None
        try:
            result = None if fate is Fate.LOST else await operation.act()
        except BirthmarkError as error:
            problem = error
        finally:
            self.busy -= 1
        if fate is not Fate.DONE:  # also when the answer is a refusal
            problem = self.trouble(fate)
        if operation.future.done():
            pass
        elif problem is not None:
            operation.future.set_exception(problem)
        else:
            operation.future.set_result(result)
        await self.settle()

    async def settle(self) -> None:
        """Let everybody run until they wait."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def drain(self, limit: int = 5000) -> None:
        """Let everything happen, in the order it was asked for."""
        await self.settle()
        for _ in range(limit):
            if not (ready := self.ready()):
                return
            await self.happen(ready[0])
        raise AssertionError(f"end has no value of it: {self.pending[:5]}")

    def call_later(self, worker: str, delay_s: float, act: Callable[[], object]) -> "VirtualTimer":
        timer = VirtualTimer(worker, act)
        heapq.heappush(self._timers, (self.clock.monotonic() + delay_s, next(self._numbers), timer))
        return timer

    async def pass_time(self, seconds: float) -> None:
        """Move the clock; what is due on the way happens at its time, except on who is stopped."""
        end = self.clock.monotonic() + seconds
        held: list[tuple[float, int, VirtualTimer]] = []
        while self._timers and self._timers[0][0] <= end:
            due = heapq.heappop(self._timers)
            at, _, timer = due
            if timer.is_cancelled or not self.is_alive(timer.worker):
                continue
            if timer.worker in self.stopped:
                held.append(due)
                continue
            self.clock.move(timedelta(seconds=max(0.0, at - self.clock.monotonic())))
            timer.act()
            await self.settle()
        for due in held:
            heapq.heappush(self._timers, due)
        self.clock.move(timedelta(seconds=max(0.0, end - self.clock.monotonic())))
        await self.settle()

    def kill(self, worker: str) -> None:
        """Nothing of this worker happens any more."""
        self.pending = [operation for operation in self.pending if operation.worker != worker]
        self.buses.pop(worker, None)
        self.stopped.discard(worker)


class VirtualTimer:
    """Something that will happen."""

    def __init__(self, worker: str, act: Callable[[], object]) -> None:
        self.worker = worker
        self.act = act
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class VirtualTimers:
    """One worker's sense of time."""

    def __init__(self, world: World, worker: str) -> None:
        self._world = world
        self._worker = worker

    def call_later(self, delay_s: float, act: Callable[[], object]) -> VirtualTimer:
        return self._world.call_later(self._worker, delay_s, act)

    async def sleep(self, delay_s: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(delay_s, partial(_resolve, done))
        await done

    def monotonic(self) -> float:
        return self._world.clock.monotonic()


class GatedDatabase:
    """A worker's database: each read and each commit waits for its turn."""

    def __init__(self, world: World, worker: str, inner: Database) -> None:
        self._world = world
        self._worker = worker
        self._inner = inner

    @property
    def worker(self) -> str:
        return self._worker

    @property
    def sharing(self) -> SharedDatabase:
        return self._inner.sharing

    def submit(self, changes: Changes) -> "asyncio.Future[None]":
        return self._world.ask_for(self._worker, "commit", lambda: self._inner.commit(changes))

    async def commit(self, changes: Changes) -> None:
        await self.submit(changes)

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        return await self._world.ask_for(self._worker, "read", lambda: self._inner.one(statement, **params))

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        rows: Sequence[Row] = await self._world.ask_for(
            self._worker, "read", lambda: self._inner.all(statement, **params)
        )
        return rows

    async def read_in_background(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        return await self.all(statement, **params)

    async def write_outside_batch(self, statement: Statement, /, **params: Any) -> bool:
        return bool(
            await self._world.ask_for(
                self._worker, "commit", lambda: self._inner.write_outside_batch(statement, **params)
            )
        )

    def on_events(self, hear: Hear) -> None: ...

    def find_disk_full_error(self) -> None: ...


class VirtualBus:
    """A bus over an unreliable network. With a `database` it hands on what is committed there, from its outbox."""

    def __init__(self, world: World, worker: str, database: Database | None = None) -> None:
        self._world = world
        self._database = database
        self._latest = LatestVersions()
        self._kinds: dict[str, type[Event]] = {}
        self._handled: set[int] = set()  # here, and not yet elsewhere
        self._wanted = asyncio.Event()
        self.last = 0
        self._handlers: defaultdict[type[Event], list[Callable[[Any], None]]] = defaultdict(list)
        self._servers: dict[type[BusRequest[Any]], Callable[[Any], Awaitable[Any]]] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.is_alive: Callable[[str], Awaitable[bool]]
        self.others: Callable[[], Awaitable[list[str]]]
        self.worker = worker

    def on(self, kind: type[E], handler: Callable[[E], None]) -> None:
        self._kinds[kind_of(kind)] = kind
        self._handlers[kind].append(handler)

    def on_missed(self, handler: Callable[[], Awaitable[None]]) -> None: ...

    async def catch_up(self) -> None: ...

    def start(self) -> None:
        """Begin to hand on what is committed."""
        assert self._database is not None
        self._database.on_events(self._hear)
        self._wanted.set()
        self.run(self._drain(self._database))

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:
        self._wanted.set()
        if is_sure and self.worker in self._world.buses:
            for number, event in events:
                if number > self.last and number not in self._handled:
                    self._handled.add(number)
                    self._handle(event)

    async def _drain(self, database: Database) -> None:
        """Hand on, in the order of the commits; what every worker has handled leaves the outbox."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while rows := await database.events_after(self.last, 100):
                for row in rows:
                    if (kind := self._kinds.get(row["kind"])) is not None:
                        event = decode_event(row["body"], kind)
                        if row["seq"] not in self._handled:
                            self._handled.add(row["seq"])
                            self._handle(event)
                        await self._confirmed_elsewhere(event)
                    self.last = row["seq"]
                    self._handled.discard(self.last)
                database.discard_events(self.last)

    def serve(self, kind: type[BusRequest[R]], handler: Callable[[Any], Awaitable[R]]) -> None:
        self._servers[kind] = handler

    def announce(self, event: Event) -> None:
        self._handle(event)
        for worker in [one for one in self._world.buses if one != self.worker]:
            sent = self._world.ask_for(self.worker, "announce", partial(self._hear_at, worker, event))
            sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def confirm(self, event: Event) -> None:
        self._handle(event)
        await asyncio.sleep(0)  # its handlers come first
        await self._confirmed_elsewhere(event)

    async def _confirmed_elsewhere(self, event: Event) -> None:
        """Every worker of which nobody knows that it is dead has to answer."""

        async def tell(worker: str) -> bool:
            told = self._world.ask_for(self.worker, "confirm", partial(self._hear_at, worker, event))
            told.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may come too late
            return await self._within(told, AGAIN_S)

        async def pause() -> None:
            later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._world.call_later(self.worker, PAUSE_S, partial(_resolve, later))
            await later

        await confirmed_by(await self.others(), tell, self.is_alive, pause)

    async def ask(self, worker: str, request: BusRequest[R], timeout_s: float = ASK_S) -> R:
        kind = type(request).__name__
        if worker not in self._world.buses:
            raise WorkerUnreachableError(worker=worker)
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may come too late
        sent = self._world.ask_for(self.worker, f"ask {kind}", lambda: self._ask_at(worker, request, answer))
        sent.add_done_callback(lambda done: done.exception())
        if not await self._within(answer, timeout_s):
            raise NoAnswerError(worker=worker, request=kind, reason="nothing came")
        return answer.result()

    def tell(self, worker: str, batch: Sequence[BusRequest[R]]) -> None:
        sent = self._world.ask_for(self.worker, "tell", partial(self._tell_at, worker, tuple(batch)))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _within(self, future: "asyncio.Future[Any]", timeout_s: float) -> bool:
        """Say whether the future has a result in time; raise what it raises, if that is the answer."""
        late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._world.call_later(self.worker, timeout_s, partial(_resolve, late))
        await asyncio.wait({future, late}, return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        if not future.done():
            return False
        if isinstance(future.exception(), DatabaseUnavailableError):
            return False
        future.result()
        return True

    async def _ask_at(self, worker: str, request: BusRequest[Any], answer: "asyncio.Future[Any]") -> None:
        """The request arrives; the answer comes back as another message."""
        there = self._world.buses.get(worker)
        if there is None:
            _fail(answer, WorkerUnreachableError(worker=worker))
            return

        async def handle() -> None:
            try:
                result = await there._served(request)
            except BirthmarkError as error:
                await self._world.ask_for(worker, "refusal", partial(_give, answer, None, error))
            else:
                await self._world.ask_for(worker, "answer", lambda: _give(answer, result, None))

        there.run(handle())

    async def _tell_at(self, worker: str, batch: Sequence[BusRequest[Any]]) -> None:
        if (there := self._world.buses.get(worker)) is not None:
            there.run(there._served_all(batch))

    async def _served_all(self, batch: Sequence[BusRequest[Any]]) -> None:
        for request in batch:
            await _quiet(self._served(request))

    async def _served(self, request: BusRequest[Any]) -> Any:
        facts = {"worker": self.worker, "request": type(request).__name__}
        if (handler := self._servers.get(type(request))) is None:
            raise NoAnswerError(reason="it serves nothing of that kind", **facts)
        try:
            return await handler(request)
        except BirthmarkError:
            raise
        except Exception as error:
            log.exception("bus.request_failed")
            raise NoAnswerError(reason="it made a mistake", **facts) from error

    async def _hear_at(self, worker: str, event: Event) -> None:
        there = self._world.buses.get(worker)
        if there is None or worker in self._world.stopped:
            raise DatabaseUnavailableError(where="simulated", reason="nothing comes back")
        there._handle(event)
        await asyncio.sleep(0)  # its handlers come first

    def _handle(self, event: Event) -> None:
        if self._latest.admits(event):
            for handler in self._handlers.get(type(event), ()):
                asyncio.get_running_loop().call_soon(handler, event)

    def run(self, waiting: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_quiet(waiting))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def _quiet(waiting: Awaitable[None]) -> None:
    try:
        await waiting
    except BirthmarkError:
        pass


async def _give(answer: "asyncio.Future[Any]", result: object, error: BirthmarkError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


def _fail(answer: "asyncio.Future[Any]", error: BirthmarkError) -> None:
    if not answer.done():
        answer.set_exception(error)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
