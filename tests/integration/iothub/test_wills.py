"""A device's will on a real database: when it is told, that it is durable first, and what a killed server owes."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.broker import Broker
from birthmark.errors import UnavailableError
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.connections import device_connections as connections
from birthmark.iothub.domain_events import HubDeleted
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.service import Telemetry
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.mqtt.packets import ConnAck, Disconnect, WillMessage
from birthmark.net.mqtt_driver import MqttDriver
from support.azure.hub_world import Wire, World, a_world, lose, until

pytestmark = pytest.mark.integration
TOPIC = "devices/device-1/messages/events/site=a"
LEFT = WillMessage(TOPIC, b"gone", 1)


async def told(world: World) -> list[bytes]:
    """Return what the hub kept, once nothing is on its way any more."""
    await world.broker.wait_until_settled()
    return [message.body for message in await world.iothub.telemetry.stream(world.hub).latest(10)]


async def a_will(world: World, *, clean: bool = False) -> tuple[MqttDriver, Wire]:
    return await world.connected(clean=clean, will=LEFT)


@pytest.mark.parametrize("clean", [True, False])
async def test_a_lost_connection_tells_the_will(tmp_path: Path, clean: bool) -> None:
    async with a_world(tmp_path) as world:
        link, _ = await a_will(world, clean=clean)
        assert await told(world) == []
        await lose(link)
        assert await told(world) == [b"gone"]
        (message,) = await world.iothub.telemetry.stream(world.hub).latest(10)
        assert message == TelemetryMessage(
            "device-1", message.enqueued_micros, b"gone", {}, {"site": "a", "iothub-MessageType": "Will"}
        )


async def test_a_disconnect_takes_it_back(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await a_will(world)
        client.client.send(Disconnect())
        link.data_received(client.client.data_to_send())
        await lose(link)
        assert await told(world) == []


async def test_a_connection_that_is_taken_over_tells_it_before_the_next_begins(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await a_will(world)
        await world.connected(clean=True)
        (message,) = await world.iothub.telemetry.stream(world.hub).latest(10)
        assert message.body == b"gone"


async def test_a_database_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(tmp_path) as world:
        link, _ = await a_will(world)
        written, tries = Telemetry.write, []

        async def away_at_first(*which: Any) -> None:
            tries.append(which)
            if len(tries) < 3:
                raise UnavailableError
            await written(*which)

        monkeypatch.setattr(Telemetry, "write", away_at_first)
        monkeypatch.setattr(connections, "_AGAIN_S", 0.01)
        await lose(link)
        assert await told(world) == [b"gone"]


async def test_a_will_is_told_once_though_its_session_is_stored(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for _ in range(2):
            link, _ = await a_will(world)
            await lose(link)
            await told(world)
        link, _ = await world.connected(clean=False)
        await lose(link)
        assert await told(world) == [b"gone"] * 2


async def test_the_next_server_tells_the_will_of_a_connection_that_ended_with_its_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await a_will(world)
        broker = Broker(world.database, world.clock, "next")  # the first one was killed and says nothing more
        await broker.load()
        connections = HubConnections(world.iothub, broker, world.clock)
        await connections.begin()
        await broker.start()
        await broker.wait_until_settled()
        assert await told(world) == [b"gone"]
        await broker.stop()


async def test_a_will_that_is_no_telemetry_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = world.start(clean=False, will=WillMessage("devices/device-2/messages/events/", b"x"))
        await until(lambda: link.is_over)
        assert client.got(ConnAck) == [ConnAck(code=5)]
        assert [error.code for error in world.refused] == ["iothub.will_invalid"]
        assert await told(world) == []


async def test_a_will_outlives_no_hub(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await a_will(world)
        await world.iothub.hubs.delete("main", actor="test")
        world.connections.drop_hub(HubDeleted("main"))
        with pytest.raises(UnknownHubError):
            await told(world)
