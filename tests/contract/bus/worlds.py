"""Worlds of workers that share a bus: what the contract runs in. An adapter adds a way to open one to `WORLDS`."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from birthmark.broker.rules.leases import LEASE_S
from birthmark.bus import Bus, LocalBus
from birthmark.bus.nats import OPTIONS, NatsBus
from birthmark.store import Database, Event, open_database
from birthmark.store.event_base_and_codec import encode_event, kind_of
from simulation import virtual as simulation
from support.fakes import FakeClock
from support.services.nats_server import a_nats_server
from support.store.store_table import a_database


class World(Protocol):
    """Workers that live, each with its bus and the database over which it commits."""

    @property
    def buses(self) -> Sequence[Bus]: ...

    @property
    def databases(self) -> Sequence[Database]: ...

    async def end(self, worker: str) -> None:
        """Let a worker's bus die, as its process would; return when its lease has run out. Its database stays open."""
        ...

    async def settled(self) -> None:
        """Return when everything that was announced or told so far has been handled, or is lost."""
        ...


Join = Callable[[Bus], None]
"""Lets a worker say what it listens to and serves, before anything is handed on."""
OpenWorld = Callable[[str, int, Join], AbstractAsyncContextManager[World]]
"""Opens a world over the database at a URL, of so many workers."""


@dataclass
class LocalWorld:
    """One worker alone."""

    buses: Sequence[LocalBus]
    databases: Sequence[Database]

    async def end(self, worker: str) -> None:
        (bus,) = self.buses
        assert bus.worker == worker
        await bus.stop()

    async def settled(self) -> None:
        (bus,) = self.buses
        heard: list[str] = []
        bus.on(Settled, lambda event: heard.append(event.token))
        token = uuid.uuid4().hex
        await bus.confirm(Settled(token))
        while bus._told or await self.databases[0].events_after(bus._last, 1):
            await bus.confirm(Settled(token))
        await bus.confirm(Settled(token))
        assert token in heard


class Settled(Event, frozen=True, tag="test.settled"):
    """Comes after what was announced before."""

    token: str

    @property
    def entity(self) -> str:
        return self.token


@contextlib.asynccontextmanager
async def a_local_world(url: str, count: int, join: Join) -> AsyncIterator[World]:
    assert count == 1
    async with a_database(url) as database:
        bus = LocalBus(database)
        join(bus)
        bus.start()
        try:
            yield LocalWorld([bus], [database])
        finally:
            await bus.stop()


@dataclass(frozen=True)
class Adapter:
    """A way to open worlds, of at most so many workers."""

    open: OpenWorld
    most: int


@dataclass
class SimulatedWorld:
    """Several workers in virtual time, which passes by itself where nobody has anything to do."""

    world: simulation.World
    buses: Sequence[simulation.VirtualBus]
    databases: Sequence[Database]
    leases: set[str]

    async def run(self) -> None:
        """Let everything happen in the order it was asked for."""
        while True:
            await asyncio.sleep(0.0005)
            if ready := self.world.ready():
                await self.world.happen(ready[0])
            else:
                await self.world.pass_time(0.01)

    async def end(self, worker: str) -> None:
        bus = self.world.buses[worker]
        self.world.kill(worker)
        await ended(bus.tasks)
        until = self.world.clock.monotonic() + LEASE_S
        while self.world.clock.monotonic() < until:
            await asyncio.sleep(0.001)
        self.leases.discard(worker)

    async def settled(self) -> None:
        for bus, database in zip(self.buses, self.databases, strict=True):
            if bus.worker in self.world.buses:
                while await database.events_after(bus.last, 1):
                    await asyncio.sleep(0.001)
        idle = 0
        while idle < 20:
            await asyncio.sleep(0.001)
            idle = 0 if self.world.pending else idle + 1


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    some = tuple(tasks)
    for task in some:
        task.cancel()
    await asyncio.gather(*some, return_exceptions=True)


@contextlib.asynccontextmanager
async def a_simulated_world(url: str, count: int, join: Join) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        clock = FakeClock()
        databases = [await open_database(url, clock, worker=f"w{number}") for number in range(count)]
        for database in databases:
            stack.push_async_callback(database.close)
        world = simulation.World()
        buses = [simulation.VirtualBus(world, database.worker, database) for database in databases]
        simulated = SimulatedWorld(world, buses, databases, {bus.worker for bus in buses})

        async def is_alive(worker: str) -> bool:
            return worker in simulated.leases

        for bus in buses:
            world.buses[bus.worker] = bus
            bus.is_alive, bus.others = is_alive, partial(_without, simulated.leases, bus.worker)
            join(bus)
        running = asyncio.create_task(simulated.run())
        for bus in buses:
            bus.start()
        await world.settle()
        try:
            yield simulated
        finally:
            await ended([running, *(task for bus in buses for task in bus.tasks)])


async def _without(leases: set[str], worker: str) -> list[str]:
    return sorted(leases - {worker})


@dataclass
class NatsWorld:
    """Several workers, each with a connection of its own to one NATS server."""

    buses: Sequence[NatsBus]
    databases: Sequence[Database]
    connections: Mapping[str, Client]
    leases: set[str]

    async def end(self, worker: str) -> None:
        (bus,) = [bus for bus in self.buses if bus.worker == worker]
        await self.connections[worker].close()
        await bus.stop()
        self.leases.discard(worker)
        for alive in [one for name, one in self.connections.items() if name != worker][:1]:
            with contextlib.suppress(NoRespondersError):
                while True:  # NATS learns of it by another connection than this one asks by
                    with contextlib.suppress(NatsTimeoutError):
                        await alive.request(bus._at + worker, b"", timeout=0.02)

    async def settled(self) -> None:
        living = [(bus, database) for bus, database in zip(self.buses, self.databases, strict=True) if bus.is_connected]
        for _ in range(3):  # what is told may lead to more
            for bus, database in living:
                while await database.events_after(bus._last, 1) or not bus._waiting.empty():
                    await asyncio.sleep(0.005)
                told = Settled(uuid.uuid4().hex)
                while not await bus._confirmed([(kind_of(Settled), encode_event(told))]):
                    pass  # on a busy machine a lease passes before each has said that it heard
            while any(bus._told or bus._serving for bus, _ in living):
                await asyncio.sleep(0.005)


@dataclass(frozen=True)
class KnownMembers:
    """Members whose leases a test ends; one that is marked reads nothing by itself."""

    own: str
    leases: set[str]
    marks: dict[str, int]
    is_fresh: bool = True

    async def others(self) -> list[str]:
        return sorted(self.leases - {self.own})

    async def is_alive(self, worker: str) -> bool:
        return worker in self.leases

    async def mark(self, worker: str) -> int | None:
        if worker not in self.leases:
            return None
        self.marks[worker] = self.marks.get(worker, 0) + 1
        return self.marks[worker]

    async def has_read(self, worker: str, mark: int) -> bool:
        return worker not in self.leases


@contextlib.asynccontextmanager
async def a_nats_world(url: str, count: int, join: Join) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_nats_server())
        databases, connections, leases = [], {}, {f"w{number}" for number in range(count)}
        for worker in sorted(leases):
            database = await open_database(url, FakeClock(), worker=worker)
            stack.push_async_callback(database.close)
            databases.append(database)
            connections[worker] = Client()
            await connections[worker].connect(server, **OPTIONS)
            stack.push_async_callback(connections[worker].close)

        marks: dict[str, int] = {}
        buses = [NatsBus(database, connections[database.worker], "test") for database in databases]
        for bus in buses:
            join(bus)
            await bus.join(KnownMembers(bus.worker, leases, marks))
        for bus in buses:
            bus.start()
        yield NatsWorld(buses, databases, connections, leases)
        for bus in buses:
            await bus.stop()


WORLDS: Mapping[str, Adapter] = {
    "local": Adapter(a_local_world, 1),
    "simulated": Adapter(a_simulated_world, 3),
    "nats": Adapter(a_nats_world, 3),
}
