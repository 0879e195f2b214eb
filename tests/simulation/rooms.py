"""Simulated workers that hold the real rooms, composed as a server composes them, on one database in virtual time.

Real are the rooms and what ties them together, the pump and the engine of each connection, the HTTP interfaces, the bus
of several workers and the group commit. Made for the simulation are NATS (`processes`), the TLS in front of the pump
(`lines`), and that each read, write and message waits for its turn.
"""

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar, cast

from birthmark.broker.rules.leases import BEAT_S, LEASE_S
from birthmark.bus.nats import NatsBus
from birthmark.ca import ca_directory
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.root_generation_directories import Generations
from birthmark.ca.root_rollover import Rollovers
from birthmark.errors import UnavailableError
from birthmark.server import database_installation_facts
from birthmark.server.composition_root import ServerServices, open_rooms
from birthmark.server.est_settings import EstConfiguration
from birthmark.server.mqtt_and_http_dispatch import Applications
from birthmark.server.settings import Settings
from birthmark.store import Database, open_database
from birthmark.store.sqlite import SqliteDatabase
from birthmark.supervised_tasks import start_supervised
from simulation.processes import GatedEngine, Process, ProcessWorld
from simulation.virtual import Fate, Operation
from support.fakes import NOON, FakeClock, SeededEntropy

T = TypeVar("T")
HUB, HOST = "main", "hub.example"
MOST_ALIVE = 3
"""Valid certificates of one name by EST."""
_STEP_S = 0.05
_PATIENCE_S = 30.0


class GoneError(Exception):
    """The worker was killed before it had done what it was asked for."""


class RoomWorker:
    """One incarnation of a worker."""

    def __init__(self, house: "House", place: int, number: int, engine: Database) -> None:
        self.house = house
        self.engine = engine
        self.place = place
        self.name = f"w{place}-{number}"
        self.process = Process(house.world, self.name)
        self.entropy = SeededEntropy(1000 * place + number)
        self.is_ready = self.is_lost = False
        self.rooms: ServerServices
        self.doors: Applications
        self.cloud: Any
        self.starting = self.process.spawn(self._start())

    async def _start(self) -> None:
        """Do what `Server.start` does, but for ports, files and the operator's interface."""
        world, clock, entropy = self.house.world, self.house.world.clock, self.entropy
        database = cast("Database", GatedEngine(world, self.name, self.engine))
        settings, rollovers = self.house.settings, self.house.rollovers(database)
        number, id_ = (
            await database_installation_facts.ensure_worker_number(database),
            await database_installation_facts.ensure_installation_id(database, entropy),
        )
        bus = NatsBus(database, self.process.line.as_client, id_, self.name, number=number)
        rooms = self.rooms = await open_rooms(settings, rollovers, database, bus, clock, entropy, None)
        await rollovers.load()
        rooms.subscribe(bus)
        rooms.devices.answer_workers(bus)
        self.doors = Applications(rooms, settings, clock, entropy)
        self.cloud = self.doors.cloud()
        rooms.broker.end_when_lost(self._lost)
        bus.start()
        await rooms.broker.start()
        for name, work in (
            ("messages to devices", rooms.iothub.c2d.run_expiry_loop),
            ("trimming of telemetry", rooms.iothub.telemetry.run_trim_loop),
            ("device queues", rooms.hub_connections.run_queue_check_loop),
            ("token expiry", rooms.hub_connections.run_token_expiry_loop),
        ):
            start_supervised(name, work)
        self.is_ready = True

    def _lost(self) -> None:
        """The others took it for dead: its parent ends it, and starts another."""
        self.is_lost = True

    @property
    def has_failed(self) -> bool:
        """Say whether it could not start; for what else than an engine that is away, that is an error."""
        if not self.starting.done() or (problem := self.starting.exception()) is None:
            return False
        if not isinstance(problem, UnavailableError):
            raise problem
        return True

    @property
    def is_alive(self) -> bool:
        return self.house.world.is_alive(self.name)

    @property
    def is_stopped(self) -> bool:
        return self.name in self.house.world.stopped

    def close(self) -> None:
        """Cut its lines to the database."""
        engine: Any = self.engine
        if isinstance(engine, SqliteDatabase):
            engine._thread.stop()
            engine._reader.close()
            engine._writer.close()
            return
        engine._is_closing = True
        engine._pool.terminate()
        engine._beside.close()
        engine._writer.cut()
        if engine._writer._lingering is not None:
            engine._writer._lingering.cancel()


class House:
    """Workers on one database, started and killed by their places."""

    def __init__(self, directory: Path, count: int, url: str) -> None:
        self.world = ProcessWorld()
        self.directory = directory
        self.url = url or f"sqlite:///{directory}/house.db"
        est = EstConfiguration(max_live=MOST_ALIVE)
        self.settings = Settings(data=str(directory), host="localhost", est=est)
        self.workers: list[RoomWorker | None] = [None] * count
        self.dead: list[RoomWorker] = []
        self._starts = 0
        self.on_killed: list[Callable[[RoomWorker], None]] = []

    def rollovers(self, database: Database) -> Rollovers:
        """Return the CA of this installation, as a worker opens it."""
        clock, entropy, passphrase = self.world.clock, SeededEntropy(), Passphrase(self.directory / "ca")
        hierarchy = ca_directory.load(self.directory / "ca", passphrase)
        roots = Generations(self.directory, hierarchy.generations[0], passphrase, clock, entropy)
        return Rollovers(hierarchy, roots, database, clock)

    def worker(self, place: int) -> RoomWorker:
        """Return the worker of a place where one runs."""
        worker = self.workers[place]
        assert worker is not None
        return worker

    async def start(self, place: int) -> RoomWorker:
        """Begin to start the worker of a place, anew."""
        self._starts += 1
        engine = await open_database(self.url, self.world.clock, worker=f"w{place}")
        if isinstance(engine, SqliteDatabase):
            engine._writer.execute("PRAGMA synchronous=OFF")
        worker = self.workers[place] = RoomWorker(self, place, self._starts, engine)
        await self.world.settle()
        return worker

    async def kill(self, place: int) -> None:
        """End a worker without a word."""
        worker, self.workers[place] = self.workers[place], None
        if worker is None:
            return
        self.world.kill(worker.name)
        worker.close()
        self.dead.append(worker)
        for told in self.on_killed:
            told(worker)
        await self.world.settle()

    def stop(self, place: int) -> None:
        """Have a worker stand still."""
        self.world.stopped.add(self.worker(place).name)

    def go_on(self) -> None:
        """Let whoever stands still go on."""
        self.world.stopped.clear()

    # ---- time

    async def step(self, seconds: float = _STEP_S) -> None:
        """Let everything happen that waits, then some time pass."""
        await self.world.drain()
        await self.world.pass_time(seconds)
        await self.look_after()

    async def look_after(self) -> None:
        """Start another worker where one was taken for dead, or could not start, as their parent does."""
        for place, worker in enumerate(self.workers):
            if worker is not None and (worker.is_lost or worker.has_failed):
                await self.kill(place)
                await self.start(place)

    async def live_on(self, seconds: float) -> None:
        """Let time pass, and everything happen in it."""
        until = self.world.clock.monotonic() + seconds
        while self.world.clock.monotonic() < until:
            await self.step(BEAT_S)
        await self.world.drain()

    async def until(self, condition: Callable[[], bool], most_s: float = _PATIENCE_S) -> None:
        """Let time pass until something is so."""
        end = self.world.clock.monotonic() + most_s
        await self.world.drain()
        while not condition():
            if self.world.clock.monotonic() > end:
                raise AssertionError(f"it never came to that: {self.world.pending[:5]}")
            await self.step()

    async def done(self, place: int, work: Coroutine[Any, Any, T], most_s: float = _PATIENCE_S) -> T:
        """Do something in a worker, and return what comes of it. Raise `GoneError` when it is killed meanwhile."""
        worker = self.worker(place)
        task = worker.process.spawn(work)
        await self.until(lambda: task.done() or not worker.is_alive, most_s)
        if not task.done():
            raise GoneError
        return task.result()

    async def until_asked(self, what: str, worker: RoomWorker | None = None) -> Operation:
        """Let everything else happen until something of this kind waits; return it."""

        def found() -> Operation | None:
            own = (one for one in self.world.ready() if one.what == what)
            return next((one for one in own if worker is None or one.worker == worker.name), None)

        for _ in range(1000):
            await self.world.settle()
            if (waiting := found()) is not None:
                return waiting
            if ready := self.world.ready():
                await self.world.happen(ready[0])
            else:
                await self.world.pass_time(_STEP_S)
        raise AssertionError(f"nobody asks for {what}")

    async def next_is(self, what: str, fate: Fate, worker: RoomWorker | None = None) -> None:
        """Let the next operation of this kind have this fate."""
        await self.world.happen(await self.until_asked(what, worker), fate)

    async def without(self, what: str, condition: Callable[[], bool]) -> None:
        """Let everything else than this happen, and no time pass, until something is so."""
        await self.only(lambda one: one.what != what, condition)

    async def only(self, may: Callable[[Operation], bool], condition: Callable[[], bool]) -> None:
        """Let nothing else happen, and no time pass, until something is so."""
        await self.world.settle()
        while not condition():
            found = next((one for one in self.world.ready() if may(one)), None)
            assert found is not None, f"it never came to that: {self.world.pending[:5]}"
            await self.world.happen(found)

    async def together(self, what: str) -> None:
        """Let everything else happen until every worker is about to do this."""
        names = {worker.name for worker in self.workers if worker is not None}
        await self.without(what, lambda: names <= {one.worker for one in self.world.pending if one.what == what})

    async def recovered(self) -> None:
        """Let whoever stands still go on, start whoever is dead, and wait until they agree."""
        self.go_on()
        await self.live_on(1.0)
        for place, worker in enumerate(self.workers):
            if worker is None:
                await self.start(place)
        await self.live_on(2 * LEASE_S)
        await self.until(lambda: all(one is not None and one.is_ready for one in self.workers))


@cache
def _first_directory() -> Path:
    """Make what every house begins with: the CA, and a database of this version."""
    directory = Path(mkdtemp(prefix="house-"))
    ca_directory.create(directory / "ca", "Test", now=NOON, entropy=SeededEntropy())
    return directory


async def _furnished(directory: Path) -> None:
    made = _first_directory()
    if not (made / "house.db").exists():
        await (await open_database(f"sqlite:///{made}/house.db", FakeClock(), worker="first")).close()
    shutil.copytree(made, directory, dirs_exist_ok=True)


@contextlib.asynccontextmanager
async def a_house(directory: Path, count: int = 2, url: str = "") -> AsyncIterator[House]:
    """Yield workers that run, with one hub; on a database in `directory`, or an empty one at `url`."""
    await _furnished(directory)
    house = House(directory, count, url)
    with house.world.on_this_loop():
        try:
            for place in range(count):
                worker = await house.start(place)
                await house.until(lambda worker=worker: worker.is_ready)  # type: ignore[misc] # bound now
            hubs = house.worker(0).rooms.iothub.hubs
            await house.done(0, hubs.create(HUB, HOST, actor="test"))
            yield house
        finally:
            for place in range(count):
                await house.kill(place)
            for worker in house.dead:
                await worker.process.end()
    assert not house.world.mistakes, house.world.mistakes
