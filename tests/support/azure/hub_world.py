"""A hub on a real database, and a device at the other end of a wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from birthmark.broker import Broker
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub
from birthmark.iothub.mqtt import MqttAdmission
from birthmark.iothub.service import IotHub
from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect, Packet, WillMessage
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.tls import TlsPeer
from birthmark.store import Database, open_database
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import a_device

DEVICE = a_device(common_name="device-1").certificate
PEER = TlsPeer(DEVICE, (), b"", "", "TLSv1.3")
ON_RECORD = DeviceAuthentication(AuthenticationType.SELF_SIGNED, DEVICE.thumbprint)
P = TypeVar("P")


@dataclass
class Wire:
    """The pump's transport, and the client at its other end."""

    client: MqttEngine = field(default_factory=lambda: MqttEngine(MqttRole.CLIENT))
    heard: list[Packet] = field(default_factory=list)
    is_paused: bool = False
    is_over: bool = False

    def write(self, data: bytes) -> None:
        self.client.receive_data(data, 0.0)
        while (packet := self.client.next_event()) is not None:
            self.heard.append(packet)

    def close(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None: ...

    def mark_authenticated(self, owner: str) -> None: ...

    def record_incomplete(self, size: int) -> None: ...

    def got(self, kind: type[P]) -> list[P]:
        return [packet for packet in self.heard if isinstance(packet, kind)]


@dataclass
class World:
    iothub: IotHub
    hub: Hub
    connections: HubConnections
    clock: FakeClock
    database: Database
    broker: Broker
    file: Path
    refused: list[BirthmarkError] = field(default_factory=list)

    def start(
        self,
        *,
        clean: bool = True,
        will: WillMessage | None = None,
        client_id: str = "device-1",
        token: str | None = None,
    ) -> tuple[MqttDriver, Wire]:
        """Return a connection whose CONNECT is on its way."""
        password = None if token is None else token.encode()
        accept, freshness = MqttAdmission(self.connections).accept, None if self.broker.is_alone else self.broker
        wire_ = Wire()
        link = MqttDriver(accept, lambda e, _a, _p: self.refused.append(e), self.clock, PEER, freshness=freshness)
        link.start(wire_, "192.0.2.1")
        username = wire.render_username(self.hub.host, "device-1", "")
        connect = Connect(client_id, username=username, password=password, clean_start=clean, will=will)
        wire_.client.send(connect)
        link.data_received(wire_.client.data_to_send())
        return link, wire_

    async def connected(self, *, clean: bool = True, will: WillMessage | None = None) -> tuple[MqttDriver, Wire]:
        link, wire_ = self.start(clean=clean, will=will)
        await until(lambda: bool(wire_.got(ConnAck)))
        return link, wire_


@contextlib.asynccontextmanager
async def a_world(directory: Path, url: str | None = None) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(url or f"sqlite:///{directory}/x.db", clock)
    iothub = IotHub.of(database, clock, SeededEntropy())
    hub = await iothub.hubs.create("main", "hub.example", actor="test")
    await iothub.registry.put(hub, "device-1", wire.DeviceBody("device-1"), ON_RECORD, None, actor="test")
    try:
        broker = Broker(database, clock, "test")
        yield World(iothub, hub, HubConnections(iothub, broker, clock), clock, database, broker, directory / "x.db")
    finally:
        await end_of_turns()
        await iothub.telemetry.wait_until_written()
        await database.close()


async def end_of_turns() -> None:
    """Wait a moment for work that waits for its turn: ended before its first step, it would never be awaited."""
    if waiting := [task for task in asyncio.all_tasks() if "account_steps" in getattr(task.get_coro(), "__name__", "")]:
        await asyncio.wait(waiting, timeout=1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def lose(driver: MqttDriver) -> None:
    """End a connection as a cut line does; it is over when what others are owed first is done."""
    driver.connection_lost(None)
    await until(lambda: driver.is_over)
