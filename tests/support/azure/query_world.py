"""A hub with twins, and queries of it, on a real database of either engine."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from birthmark.iothub import twin_index_store
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub
from birthmark.iothub.ports import UNSEEN, SeenAt
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.queries import QueryResult
from birthmark.iothub.wire import DeviceBody
from birthmark.store import Database, open_database
from birthmark.store.table_statements import list_parameters
from support.fakes import FakeClock, SeededEntropy

SAS = DeviceAuthentication(AuthenticationType.SAS)


@dataclass
class Connected:
    """Who is connected."""

    names: set[str] = field(default_factory=set)

    async def seen(self, _hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        return [SeenAt(FakeClock().now(), is_connected=True) if one in self.names else UNSEEN for one in device_ids]

    async def connected(self, _hub: str) -> int:
        return len(self.names)

    async def connected_ids(self, _hub: str, most: int) -> Sequence[str] | None:
        return None if len(self.names) > most else list(self.names)


@dataclass
class World:
    iothub: IotHub
    hub: Hub
    database: Database
    connected: Connected = field(default_factory=Connected)
    clock: FakeClock = field(default_factory=FakeClock)

    async def has(self, device_id: str, tags: Mapping[str, Any], reported: Mapping[str, Any] | None = None) -> None:
        device = await self.iothub.registry.put(self.hub, device_id, DeviceBody(device_id), SAS, None, actor="test")
        await self.iothub.twins.desire(self.hub, device_id, {"tags": tags}, None, replaces=False, actor="test")
        if reported:
            await self.iothub.twins.report(self.hub, device, reported, None)

    async def asked(self, text: str, marker: str | None = None, size: int = 100) -> QueryResult:
        return await self.iothub.queries.answer(self.hub, text, marker, size, self.connected)

    async def found(self, where: str) -> list[str]:
        answer = await self.asked(f"SELECT deviceId FROM devices WHERE {where}")
        return [row["deviceId"] for row in answer.rows]

    async def terms(self, device_id: str) -> set[tuple[str, str]]:
        rows = await self.database.all(twin_index_store.TERMS_OF, place=self.hub.name, **list_parameters([device_id]))
        return {(row["path"], row["value"]) for row in rows}


@contextlib.asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    iothub = IotHub.of(database, clock, SeededEntropy())
    hub = await iothub.hubs.create("main", "hub.example", actor="test")
    try:
        yield World(iothub, hub, database, clock=clock)
    finally:
        await iothub.telemetry.wait_until_written()
        await database.close()
