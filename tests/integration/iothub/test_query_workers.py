"""A worker that indexes beside one whose devices report the same twins, in another order: no deadlock comes of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody
from birthmark.store import open_database
from support.azure.query_world import World
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
DEVICES, ROUNDS = 60, 25


@contextlib.asynccontextmanager
async def two_workers(url: str) -> AsyncIterator[tuple[World, World]]:
    async with contextlib.AsyncExitStack() as stack:
        worlds: list[World] = []
        for number, worker in enumerate(("one", "two")):
            database = await open_database(url, FakeClock(), worker=worker)
            stack.push_async_callback(database.close)
            iothub = IotHub.of(database, FakeClock(), SeededEntropy(number))
            if not worlds:
                await iothub.hubs.create("main", "hub.example", actor="test")
            await iothub.hubs.load()
            worlds.append(World(iothub, iothub.hubs.by_name("main"), database))
        yield worlds[0], worlds[1]


async def made(world: World, name: str) -> Device:
    wanted = DeviceAuthentication(AuthenticationType.SAS)
    return await world.iothub.registry.put(world.hub, name, DeviceBody(name), wanted, None, actor="test")


async def deadlocks(url: str) -> int:
    """Return how many PostgreSQL has found in this database."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(await connection.fetchval(counted))
    finally:
        await connection.close()


async def test_nobody_is_in_the_way_of_who_indexes_and_nothing_is_left_behind(postgres_url: str) -> None:
    async with two_workers(postgres_url) as (indexing, serving):
        devices = [await made(serving, f"d-{number:02}") for number in range(DEVICES)]
        is_over = asyncio.Event()

        async def index() -> None:
            while not is_over.is_set():
                await indexing.iothub.index.index_batch()
                await asyncio.sleep(0)

        task = asyncio.create_task(index())
        for number in range(ROUNDS):
            reports = (serving.iothub.twins.report(serving.hub, one, {"n": number}, None) for one in reversed(devices))
            await asyncio.gather(*reports)
            await serving.iothub.registry.remove(serving.hub, "d-07", None, actor="test")
            devices[7] = await made(serving, "d-07")
        is_over.set()
        await task
        await serving.iothub.registry.remove(serving.hub, "d-07", None, actor="test")
        await indexing.iothub.index.index_all()
        assert await indexing.terms("d-07") == set()
        last = await indexing.found(f"properties.reported.n = {ROUNDS - 1}")
        assert last == [one.device_id for one in devices if one.device_id != "d-07"]
    assert await deadlocks(postgres_url) == 0  # which those who have gone have told of
