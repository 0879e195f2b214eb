"""Worlds of workers that share a bus: what the contract runs in. An adapter adds a way to open one to `WORLDS`."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from birthmark.bus import Bus, LocalBus
from birthmark.store import Database, Event
from store_table import a_database


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


WORLDS: Mapping[str, Adapter] = {"local": Adapter(a_local_world, 1)}
