"""A hub with a tier, at its devices' side: what comes too fast waits, is answered 429, or is not let in."""

from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.iothub import wire
from birthmark.iothub.rules.tiers import (
    Edition,
    Metered,
    Tier,
    TierQuotaError,
    TierThrottledError,
    TooManyDevicesError,
)
from birthmark.mqtt import codec
from birthmark.mqtt.packets import LEVEL_3_1_1, ConnAck, PubAck, Publish
from birthmark.net.admission import Closed
from hub_world import ON_RECORD, World, a_world, until

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
        assert client.is_paused or len(client.got(PubAck)) < 105
        await until(lambda: len(client.got(PubAck)) == 105)  # in a twentieth of a second
        assert len(await world.iothub.telemetry.stream(world.hub).latest(1000)) == 105
        assert world.refused == []


async def test_one_device_that_floods_leaves_turns_to_the_others(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await tiered(world, Edition(Tier.S1))
        link, client = await world.connected()
        link.data_received(b"".join(telemetry(number) for number in range(1, 2001)))  # twenty seconds' worth
        await until(lambda: len(client.got(PubAck)) >= 110)
        throttle = world.iothub.throttles.of("main")
        assert throttle is not None
        assert throttle.shape(Metered.TELEMETRY, world.clock.monotonic(), 1) < 1
        link.close(Closed.ADMINISTRATIVE)


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
            throttle.take(Metered.CONNECTION, world.clock.monotonic())
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
