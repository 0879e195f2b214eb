"""What comes when a device, a hub or a key is no more: a body of which the head came before, and a call that waited."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from birthmark.bus import LocalBus, NoAnswerError
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.connections import cross_worker_device_calls
from birthmark.iothub.connections.cross_worker_device_calls import DevicesByBus
from birthmark.iothub.http import routes
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.direct_methods import (
    MAX_LEVELS,
    MAX_PAYLOAD_BYTES,
    DeviceNotOnlineError,
    MethodAnswerInvalidError,
)
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.mqtt.packets import PubAck, Publish, SubAck, Subscribe
from support.azure.hub_world import ON_RECORD, World, a_world, until
from support.floods.whole_requests import answering_early

pytestmark = pytest.mark.integration
CALL = wire.MethodCall("unlock", None, 5, 60)


async def test_who_asks_is_looked_at_when_the_whole_request_is_there(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        found = routes(world.iothub, cast("Any", None), lambda _error, _request: "")
        assert await answering_early(found) == []


async def made_anew(world: World) -> None:
    """Remove the hub, and make one of its name with a device of the same name."""
    world.iothub.hubs.without_telemetry = world.iothub.telemetry.drain
    await world.iothub.hubs.delete("main", actor="test")
    world.hub = await world.iothub.hubs.create("main", "hub.example", actor="test")
    await world.iothub.registry.put(world.hub, "device-1", wire.DeviceBody("device-1"), ON_RECORD, None, actor="test")


async def test_telemetry_for_a_hub_that_is_gone_is_not_the_next_ones_of_that_name(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        before = world.hub
        await made_anew(world)
        with pytest.raises(UnknownHubError):
            await world.iothub.telemetry.write(before, 1, [TelemetryMessage("old", 1, b"late", {}, {})], 4)
        assert await world.iothub.telemetry.stream(world.hub).latest(10) == []


async def test_telemetry_for_a_hub_whose_keys_were_rotated_is_its_own(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        before = world.hub
        for policy in before.policies:
            await world.iothub.hubs.rotate("main", policy, "primary", actor="test")
        await world.iothub.telemetry.write(before, 1, [TelemetryMessage("device-1", 1, b"in time", {}, {})], 7)
        assert len(await world.iothub.telemetry.stream(before).latest(10)) == 1


def calling(world: World) -> DevicesByBus:
    devices = DevicesByBus(world.connections, bus := LocalBus(world.database, "test"))
    world.connections.listen(bus)
    return devices


async def listening(world: World) -> tuple[Any, Any]:
    link, client = await world.connected()
    client.client.send(Subscribe(1, ((wire.METHODS, 1),)))
    link.data_received(client.client.data_to_send())
    await until(lambda: len(client.got(SubAck)) == 1)
    return link, client


async def test_a_call_that_waited_reaches_no_device_of_the_next_hub(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        waiting = asyncio.create_task(calling(world).call(world.hub, "device-1", CALL))
        await asyncio.sleep(0.2)
        await made_anew(world)
        _, client = await listening(world)
        with pytest.raises(UnknownHubError):
            await waiting
        assert client.got(Publish) == []


async def test_a_call_that_waited_reaches_no_device_that_has_the_name_since(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        registry = world.iothub.registry
        waiting = asyncio.create_task(calling(world).call(world.hub, "device-1", CALL))
        await asyncio.sleep(0.2)
        world.clock.move(timedelta(seconds=1))
        await registry.remove(world.hub, "device-1", None, actor="test")
        await registry.put(world.hub, "device-1", wire.DeviceBody("device-1"), ON_RECORD, None, actor="test")
        _, client = await listening(world)
        with pytest.raises(BirthmarkError) as refused:
            await waiting
        assert refused.value.code == "iothub.unknown_device"
        assert client.got(Publish) == []


async def test_a_call_that_waits_for_its_device_ends_with_the_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        devices = calling(world)
        waiting = asyncio.create_task(devices.call(world.hub, "device-1", CALL))
        await asyncio.sleep(0.2)
        devices.end_calls()
        with pytest.raises(NoAnswerError, match="did not respond"):
            await waiting
        with pytest.raises(NoAnswerError):  # by a request that was under way
            await devices.call(world.hub, "device-1", CALL)


async def test_a_device_that_was_called_may_answer_while_the_server_stops(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await listening(world)
        devices = calling(world)
        waiting = asyncio.create_task(devices.call(world.hub, "device-1", CALL))
        await until(lambda: bool(client.got(Publish)))
        devices.end_calls()
        rid = client.got(Publish)[0].topic.partition("$rid=")[2]
        client.client.publish(f"$iothub/methods/res/200/?$rid={rid}", b'"done"')
        link.data_received(client.client.data_to_send())
        assert await waiting == (200, "done")


async def test_who_waits_long_looks_for_a_device_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_worker_device_calls, "_LOOK_S", 0.001)
    async with a_world(tmp_path) as world:
        devices, looks = calling(world), list[str]()
        space = world.connections.space("main")
        monkeypatch.setattr(space, "owner", lambda device: nowhere(looks, device))
        with pytest.raises(DeviceNotOnlineError):
            await devices.call(world.hub, "device-1", msgspec.structs.replace(CALL, connect_timeout_in_seconds=1))
    assert 5 < len(looks) < 60


async def nowhere(looks: list[str], device: str) -> None:
    looks.append(device)


@pytest.mark.parametrize(
    "said", [b'{"a":"\xff"}', b"x", b"[" * (MAX_LEVELS + 1) + b"]" * (MAX_LEVELS + 1), b"1" * (MAX_PAYLOAD_BYTES + 1)]
)
async def test_an_answer_that_cannot_be_handed_on_ends_the_call_and_leaves_the_device(
    tmp_path: Path, said: bytes
) -> None:
    async with a_world(tmp_path) as world:
        link, client = await listening(world)
        waiting = asyncio.create_task(calling(world).call(world.hub, "device-1", CALL))
        await until(lambda: bool(client.got(Publish)))
        rid = client.got(Publish)[0].topic.partition("$rid=")[2]
        client.client.publish(wire.telemetry_topic("device-1"), b"1", 1)
        client.client.publish(f"$iothub/methods/res/200/?$rid={rid}", said)
        link.data_received(client.client.data_to_send())
        with pytest.raises(MethodAnswerInvalidError):
            await waiting
        await until(lambda: bool(client.got(PubAck)))
        assert not client.is_over


async def test_an_answer_of_as_many_levels_as_there_may_be_is_handed_on(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await listening(world)
        waiting = asyncio.create_task(calling(world).call(world.hub, "device-1", CALL))
        await until(lambda: bool(client.got(Publish)))
        rid = client.got(Publish)[0].topic.partition("$rid=")[2]
        client.client.publish(f"$iothub/methods/res/200/?$rid={rid}", b"[" * MAX_LEVELS + b"]" * MAX_LEVELS)
        link.data_received(client.client.data_to_send())
        assert (await waiting)[0] == 200


async def test_a_hub_that_is_removed_twice_at_once_leaves_the_one_that_is_made_between(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        hubs, first, let_go = world.iothub.hubs, asyncio.Event(), asyncio.Event()

        @contextlib.asynccontextmanager
        async def busy(_hub: Any) -> AsyncIterator[None]:
            first.set()
            await let_go.wait()
            yield

        hubs.without_telemetry = busy
        waiting = asyncio.create_task(hubs.delete("main", actor="test"))
        await first.wait()
        hubs.without_telemetry = lambda _hub: contextlib.nullcontext()
        await hubs.delete("main", actor="test")
        made = await hubs.create("main", "hub.example", actor="test")
        let_go.set()
        with pytest.raises(UnknownHubError):
            await waiting
        assert hubs.by_name("main").policies == made.policies


async def test_a_device_is_put_on_record_at_no_hub_that_is_removed_meanwhile(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        before = world.hub
        await world.iothub.hubs.delete("main", actor="test")
        with pytest.raises(UnknownHubError):
            await world.iothub.registry.put(before, "late", wire.DeviceBody("late"), ON_RECORD, None, actor="test")
