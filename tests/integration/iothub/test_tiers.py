"""A hub with a tier, at its devices' side: what comes too fast waits, is answered 429, or is not let in."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.routing import Router
from starlette.types import Message

from birthmark.bus.local import LocalBus
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.connections.cross_worker_device_calls import DevicesByBus
from birthmark.iothub.http import device_api, service_api
from birthmark.iothub.http.authorization_and_errors import DEVICEBOUND, SERVICEBOUND
from birthmark.iothub.http.service_api import kind_of
from birthmark.iothub.rules.tier_throttles_and_quotas import (
    PATIENCE_S,
    Edition,
    ThrottleClass,
    Tier,
    TierQuotaError,
    TierThrottledError,
    TooManyDevicesError,
)
from birthmark.iothub.service.registry import DeviceExistsError
from birthmark.mqtt import codec
from birthmark.mqtt.packets import LEVEL_3_1_1, ConnAck, PubAck, Publish
from birthmark.net.mqtt_service_interface import CloseReason
from support.azure.hub_world import ON_RECORD, PEER, World, a_world, until

pytestmark = pytest.mark.integration
TOPIC = wire.telemetry_topic("device-1")


async def tiered(world: World, edition: Edition | None) -> None:
    world.hub = await world.iothub.hubs.set_tier("main", edition, actor="test")


def telemetry(number: int, payload: bytes = b"x") -> bytes:
    return codec.encode(Publish(TOPIC, payload, 1, packet_id=number), LEVEL_3_1_1)


async def test_a_hub_without_a_tier_counts_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        assert world.iothub.throttles.of("main") is None
        link, client = await world.connected()
        for number in range(1, 301):
            link.data_received(telemetry(number))
        await until(lambda: len(client.got(PubAck)) == 300)


async def test_what_a_device_sends_too_fast_waits_its_turn_and_is_all_taken(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        link, client = await world.connected()
        link.data_received(b"".join(telemetry(number) for number in range(1, 101)))
        await until(lambda: len(client.got(PubAck)) == 100)
        link.data_received(b"".join(telemetry(number) for number in range(101, 106)))
        await asyncio.sleep(0.1)
        assert len(client.got(PubAck)) == 100
        world.clock.move(timedelta(seconds=0.05))
        await until(lambda: len(client.got(PubAck)) == 105)
        assert len(await world.iothub.telemetry.stream(world.hub).latest(1000)) == 105
        assert world.refused == []


async def test_one_device_that_floods_leaves_turns_to_the_others(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        link, client = await world.connected()
        link.data_received(b"".join(telemetry(number) for number in range(1, 2001)))  # twenty seconds' worth
        await until(lambda: len(client.got(PubAck)) > 90)
        polite = asyncio.create_task(world.iothub.throttles.telemetry("main", "polite", [1], lambda: False, PATIENCE_S))
        await asyncio.sleep(0)
        world.clock.move(timedelta(seconds=0.2))
        assert await polite
        link.close(CloseReason.ADMINISTRATIVE)


async def test_a_device_that_ends_while_its_messages_wait_leaves_their_turns_to_the_others(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        throttle.take(ThrottleClass.TELEMETRY, world.clock.monotonic(), 100)
        for begin in range(1, 200, 10):
            link, _ = await world.connected()  # which ends the one before
            link.data_received(b"".join(telemetry(number) for number in range(begin, begin + 10)))
        link.close(CloseReason.ADMINISTRATIVE)
        world.clock.move(timedelta(seconds=0.02))
        assert await world.iothub.throttles.telemetry("main", "polite", [1], lambda: False, PATIENCE_S)
        assert throttle.messages(world.iothub.throttles.today()) == 1  # what was not taken, the day does not count


async def test_what_a_device_sent_before_it_hung_up_has_its_turn(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        throttle.take(ThrottleClass.TELEMETRY, world.clock.monotonic(), 100)
        link, _ = await world.connected()
        link.data_received(b"".join(telemetry(number) for number in range(1, 31)))
        link.connection_lost(None)
        await asyncio.sleep(0.05)
        assert throttle.messages(world.iothub.throttles.today()) == 0
        polite = asyncio.create_task(world.iothub.throttles.telemetry("main", "polite", [1], lambda: False, PATIENCE_S))
        await asyncio.sleep(0)
        world.clock.move(timedelta(seconds=0.2))
        assert await polite  # between its turns
        world.clock.move(timedelta(seconds=0.2))
        await until(lambda: link.is_over)
        assert throttle.messages(world.iothub.throttles.today()) == 31
        stream = world.iothub.telemetry.stream(world.hub)
        await stream.settled()
        assert len(await stream.latest(100)) == 30


async def test_a_refusal_by_mqtt_names_the_device(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.F1))
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        for _ in range(50):
            throttle.take(ThrottleClass.TWIN_UPDATE, world.clock.monotonic())
        throttle.count_blocks(8_000, world.iothub.throttles.today())
        link, client = await world.connected()
        link.data_received(codec.encode(Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{}"), LEVEL_3_1_1))
        link.data_received(telemetry(1))
        await until(lambda: client.is_over)
        assert [type(error) for error in world.refused] == [TierThrottledError, TierQuotaError]
        assert [error.facts["device_id"] for error in world.refused] == ["device-1"] * 2


async def test_a_message_by_https_waits_for_its_turn_behind_those_by_mqtt(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        await world.iothub.registry.put(world.hub, "polite", wire.DeviceBody("polite"), ON_RECORD, None, actor="test")
        link, client = await world.connected()
        link.data_received(b"".join(telemetry(number) for number in range(1, 2001)))
        await until(lambda: len(client.got(PubAck)) > 90)
        asked = asyncio.create_task(sent_by_https(world, "polite"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        world.clock.move(timedelta(seconds=0.2))
        assert await asked == 204
        link.close(CloseReason.ADMINISTRATIVE)


async def test_a_request_whose_device_went_while_it_waited_counts_nothing(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        throttle.take(ThrottleClass.TELEMETRY, world.clock.monotonic(), 100)
        assert await sent_by_https(world, "device-1", is_gone=True) == 503
        assert throttle.messages(world.iothub.throttles.today()) == 0
        assert await world.iothub.telemetry.stream(world.hub).latest(10) == []


def to_devices(world: World) -> DevicesByBus:
    return DevicesByBus(world.connections, LocalBus(world.database, "test"))


async def sent_by_https(world: World, device_id: str, *, is_gone: bool = False) -> int:
    """Return the status of a message that a device sends by its certificate."""
    told: list[Message] = []
    coming: list[Message] = [{"type": "http.request", "body": b"x", "more_body": False}]

    async def receive() -> Message:
        if coming:
            return coming.pop()
        if not is_gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    app = Router(device_api.routes(world.iothub, lambda error, _request: str(error)))
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/devices/{device_id}/messages/events",
        "query_string": b"",
        "headers": [(b"host", b"hub.example")],
        "extensions": {"tls": PEER},
    }
    await app(scope, receive, send)
    status: int = told[0]["status"]
    return status


_UNCOUNTED = {
    "DELETE /devices/{device_id}/commands": "what takes messages away",
    **{
        f"{method} /messages/{name}/feedback{rest}": "what an operator hears, of which the sheet has a pace of its own"
        for name in SERVICEBOUND
        for method, rest in (("GET", ""), ("DELETE", "/{lock}"), ("POST", "/{lock}/abandon"))
    },
    **{
        f"{method} /messages/{name}/filenotifications{rest}": "as above"
        for name in SERVICEBOUND
        for method, rest in (("GET", ""), ("DELETE", "/{lock}"), ("POST", "/{lock}/abandon"))
    },
}
_COUNTED = {
    **dict.fromkeys(
        [
            *("GET /devices", "GET /devices/", "POST /devices", "GET /statistics/devices", "GET /statistics/service"),
            *(f"{method} /devices/{{device_id}}" for method in ("GET", "PUT", "DELETE")),
            "GET /devices/{device_id}/modules",
            *(f"{method} /devices/{{device_id}}/modules/{{module_id}}" for method in ("GET", "PUT", "DELETE")),
        ],
        ThrottleClass.REGISTRY,
    ),
    **dict.fromkeys(
        ["GET /jobs", "POST /jobs/create", "GET /jobs/{job_id}", "DELETE /jobs/{job_id}"], ThrottleClass.JOB
    ),
    **dict.fromkeys(
        [
            *("GET /configurations", "POST /configurations/testQueries"),
            *(f"{method} /configurations/{{configuration_id}}" for method in ("GET", "PUT", "DELETE")),
        ],
        ThrottleClass.CONFIGURATION,
    ),
    **dict.fromkeys(
        ["GET /twins/{device_id}", "GET /twins/{device_id}/modules/{module_id}", "GET /digitaltwins/{device_id}"],
        ThrottleClass.TWIN_READ,
    ),
    **dict.fromkeys(
        [
            *(f"{method} /twins/{{device_id}}" for method in ("PATCH", "PUT", "POST")),
            *(f"{method} /twins/{{device_id}}/modules/{{module_id}}" for method in ("PATCH", "PUT", "POST")),
            *("PATCH /digitaltwins/{device_id}", "POST /devices/{device_id}/applyConfigurationContent"),
        ],
        ThrottleClass.TWIN_UPDATE,
    ),
    **dict.fromkeys(
        [
            *("POST /twins/{device_id}/methods", "POST /twins/{device_id}/modules/{module_id}/methods"),
            "POST /digitaltwins/{device_id}/commands/{command}",
            "POST /digitaltwins/{device_id}/components/{component}/commands/{command}",
        ],
        ThrottleClass.METHOD,
    ),
    **dict.fromkeys(
        [
            *(f"{method} /jobs/v2/{{job_id}}" for method in ("GET", "PUT")),
            *("POST /jobs/v2/{job_id}/cancel", "GET /jobs/v2/query"),
        ],
        ThrottleClass.JOB,
    ),
    **{f"POST /devices/{{device_id}}/messages/{name}": ThrottleClass.MAIL for name in DEVICEBOUND},
}


async def test_every_call_of_the_service_has_a_pace_or_a_reason_why_not(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        found: dict[str, ThrottleClass | None] = {}
        for route in service_api.routes(world.iothub, to_devices(world), lambda _error, _request: ""):
            for method in (route.methods or set()) - {"HEAD"}:
                kinds = set()
                for name in ("d", "commands", "methods", "messages", "modules", "query", "applyConfigurationContent"):
                    path = route.path.format_map(dict.fromkeys(route.param_convertors, name))
                    kinds.add(kind_of(method, path))
                (found[f"{method} {route.path}"],) = kinds  # whatever the device is called
        assert found == _COUNTED | dict.fromkeys(_UNCOUNTED)


async def test_a_bulk_makes_as_many_devices_as_there_is_room_for(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.F1))
        for begin in range(1, 495, 100):  # with the one that is there, 495
            await made_in_bulk(world, range(begin, min(begin + 100, 495)))
        assert (await world.iothub.registry.count(world.hub))[0] == 495
        problems = await made_in_bulk(world, range(490, 590))
        assert (await world.iothub.registry.count(world.hub))[0] == 500
        assert [type(one) for one in problems[:5]] == [DeviceExistsError] * 5
        assert [type(one) for one in problems[5:10]] == [type(None)] * 5
        assert [type(one) for one in problems[10:]] == [TooManyDevicesError] * 90


async def made_in_bulk(world: World, numbers: range) -> list[BirthmarkError | None]:
    items = wire.parse_bulk(json.dumps([{"id": f"b{number}", "importMode": "create"} for number in numbers]).encode())
    return list(await world.iothub.bulk.do(world.hub, items, actor="test"))


async def test_the_connection_ends_where_the_messages_of_the_day_are_used_up(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.F1))
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        throttle.count_blocks(7_999, world.iothub.throttles.today())
        link, client = await world.connected()
        link.data_received(telemetry(1))
        await until(lambda: len(client.got(PubAck)) == 1)
        link.data_received(telemetry(2))
        await until(lambda: client.is_over)
        assert [type(error) for error in world.refused] == [TierQuotaError]
        assert len(client.got(PubAck)) == 1
        world.clock.move(timedelta(days=1))
        link, client = await world.connected()
        link.data_received(telemetry(3))
        await until(lambda: len(client.got(PubAck)) == 1)


async def test_twins_that_are_asked_for_too_often_are_answered_429(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        link, client = await world.connected()
        for number in range(51):
            topic = f"$iothub/twin/PATCH/properties/reported/?$rid={number}"
            link.data_received(codec.encode(Publish(topic, b'{"n": 1}'), LEVEL_3_1_1))
        await until(lambda: len(client.got(Publish)) == 51)
        answers = [packet.topic.split("/")[3] for packet in client.got(Publish)]
        assert answers == ["204"] * 50 + ["429"]
        link.data_received(codec.encode(Publish("$iothub/twin/GET/?$rid=g", b""), LEVEL_3_1_1))
        await until(lambda: len(client.got(Publish)) == 52)  # reads have a pace of their own
        assert client.got(Publish)[-1].topic.startswith("$iothub/twin/res/200/")


async def test_who_connects_too_fast_is_told_to_come_later_and_not_that_it_is_wrong(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        for _ in range(100):
            throttle.take(ThrottleClass.CONNECTION, world.clock.monotonic())
        _, client = await world.connected()
        assert [packet.code for packet in client.got(ConnAck)] == [3]
        assert [type(error) for error in world.refused] == [TierThrottledError]
        world.clock.move(timedelta(seconds=1))
        _, client = await world.connected()
        assert [packet.code for packet in client.got(ConnAck)] == [0]


async def test_another_tier_counts_at_once_and_for_who_is_connected(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.F1))
        link, client = await world.connected()
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        throttle.count_blocks(8_000, world.iothub.throttles.today())
        await tiered(world, Edition(Tier.S1))
        link.data_received(telemetry(1))
        await until(lambda: len(client.got(PubAck)) == 1)
        await tiered(world, None)
        assert world.iothub.throttles.of("main") is None


async def test_a_tier_is_kept_and_is_not_another_hubs(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.iothub.hubs.create("second", "second.example", Edition(Tier.S2, 3), actor="test")
        await world.iothub.hubs.load()
        assert world.iothub.throttles.of("main") is None
        throttle = world.iothub.throttles.of("second")
        assert throttle is not None
        assert throttle.edition == Edition(Tier.S2, 3)


async def test_a_free_hub_has_room_for_five_hundred_devices(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.F1))
        registry, name = world.iothub.registry, "device-{}".format
        for number in range(2, 501):
            body = wire.DeviceBody(name(number))
            await registry.put(world.hub, name(number), body, ON_RECORD, None, actor="test")
        with pytest.raises(TooManyDevicesError):
            await registry.put(world.hub, "one-more", wire.DeviceBody("one-more"), ON_RECORD, None, actor="test")
        await registry.put(world.hub, name(2), wire.DeviceBody(name(2)), ON_RECORD, "*", actor="test")
        await registry.remove(world.hub, name(2), None, actor="test")
        await registry.put(world.hub, "one-more", wire.DeviceBody("one-more"), ON_RECORD, None, actor="test")
