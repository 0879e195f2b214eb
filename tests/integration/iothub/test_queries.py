"""Queries of a hub's twins, on both engines: by terms that are written behind the commits, and never out of date."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub
from birthmark.iothub.ports import UNSEEN, SeenAt
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.queries import Answer
from birthmark.iothub.wire import DeviceBody
from birthmark.store import Database, open_database
from fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
SAS = DeviceAuthentication(AuthenticationType.SAS)


@dataclass
class Connected:
    """Who is connected."""

    names: set[str] = field(default_factory=set)

    async def seen(self, _hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        return [SeenAt(FakeClock().now(), is_connected=True) if one in self.names else UNSEEN for one in device_ids]


@dataclass
class World:
    iothub: IotHub
    hub: Hub
    database: Database
    connected: Connected = field(default_factory=Connected)

    async def has(self, device_id: str, tags: Mapping[str, Any], reported: Mapping[str, Any] | None = None) -> None:
        device = await self.iothub.registry.put(self.hub, device_id, DeviceBody(device_id), SAS, None, actor="test")
        await self.iothub.twins.desire(self.hub, device_id, {"tags": tags}, None, replaces=False, actor="test")
        if reported:
            await self.iothub.twins.report(self.hub, device, reported, None)

    async def asked(self, text: str, marker: str | None = None, size: int = 100) -> Answer:
        return await self.iothub.queries.answer(self.hub, text, marker, size, self.connected)

    async def found(self, where: str) -> list[str]:
        answer = await self.asked(f"SELECT deviceId FROM devices WHERE {where}")
        return [row["deviceId"] for row in answer.rows]


@contextlib.asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    iothub = IotHub.of(database, clock, SeededEntropy())
    hub = await iothub.hubs.create("main", "hub.example", actor="test")
    try:
        yield World(iothub, hub, database)
    finally:
        await iothub.telemetry.settled()
        await database.close()


@pytest.mark.parametrize("is_indexed", [False, True], ids=["before-the-index", "by-the-index"])
async def test_twins_are_found_by_what_they_hold(database_url: str, *, is_indexed: bool) -> None:
    async with a_world(database_url) as world:
        await world.has("pump-1", {"site": "north", "floor": 3}, {"load": 0.5, "on": True, "net": {"kind": "lte"}})
        await world.has("pump-2", {"site": "south", "floor": 10}, {"load": 7, "on": False})
        await world.has("valve-1", {"site": "north"})
        if is_indexed:
            await world.iothub.index.index_all()
            assert await world.iothub.index.unindexed() == 0
        for where, names in {
            "tags.site = 'north'": ["pump-1", "valve-1"],
            "tags.site = 'north' AND properties.reported.load < 1": ["pump-1"],
            "tags.floor > 3": ["pump-2"],
            "tags.floor >= 3 AND tags.floor <= 3": ["pump-1"],
            "properties.reported.on": ["pump-1"],
            "properties.reported.on = false OR tags.floor = 3": ["pump-1", "pump-2"],
            "tags.site IN ['south', 'east']": ["pump-2"],
            "tags.site NIN ['south']": ["pump-1", "valve-1"],
            "is_defined(properties.reported.net)": ["pump-1"],
            "NOT is_defined(tags.floor)": ["valve-1"],
            "tags.site != 'north'": ["pump-2"],
            "STARTS_WITH(tags.site, 'so')": ["pump-2"],
            "STARTSWITH(deviceId, 'pump-')": ["pump-1", "pump-2"],
            "deviceId IN ['valve-1', 'none', 'pump-1']": ["pump-1", "valve-1"],
            "properties.reported.net.kind = 'lte'": ["pump-1"],
            "status = 'enabled' AND tags.site = 'south'": ["pump-2"],
            "properties.reported.$version > 1": ["pump-1", "pump-2"],
        }.items():
            assert await world.found(where) == names, where
