"""Whoever looks on sees what is published to a filter, disturbs nobody, and is told what it missed."""

import pytest

from birthmark.broker import message_monitor
from birthmark.broker.message_monitor import Viewer
from birthmark.mqtt.properties import PropertyId
from support.mqtt.broker_world import HOUR, World, a_world

pytestmark = pytest.mark.integration


async def seen(viewer: Viewer) -> tuple[list[tuple[str, bytes]], int]:
    messages, lost = await viewer.take(0.01)
    return [(message.topic, message.payload) for message in messages], lost


async def publish(world: World, *topics: str) -> None:
    for topic in topics:
        await world.publish(topic, topic.encode())


async def test_two_may_look_at_the_same_and_one_may_leave(database_url: str) -> None:
    async with a_world(database_url) as world:
        with world.space.messages.watch("t/+") as first:
            with world.space.messages.watch("t/+") as second:
                await publish(world, "t/1", "u/1", "t")
                assert await seen(first) == await seen(second) == ([("t/1", b"t/1")], 0)
            await publish(world, "t/2")
            assert await seen(first) == ([("t/2", b"t/2")], 0)
            assert await seen(second) == ([], 0)
        await publish(world, "t/3")
        assert await seen(first) == ([], 0)
        assert world.space.live == {}


async def test_reserved_topics_are_seen_when_they_are_named(database_url: str) -> None:
    async with a_world(database_url) as world:
        with world.space.messages.watch("#") as everything, world.space.messages.watch("$aws/events/#") as events:
            await publish(world, "$aws/events/x", "a")
            assert await seen(everything) == ([("a", b"a")], 0)
            assert await seen(events) == ([("$aws/events/x", b"$aws/events/x")], 0)


async def test_subscribers_and_stored_sessions_get_what_they_would_get(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        with world.space.messages.watch("t") as viewer:
            await publish(world, "t")
            assert client.payloads == [b"t"]
            assert await seen(viewer) == ([("t", b"t")], 0)


async def test_no_client_takes_the_place_of_one_who_looks_on(database_url: str) -> None:
    async with a_world(database_url) as world:
        with world.space.messages.watch("t") as viewer:
            client = await world.connect("$viewer/1")
            await world.subscribe(client, "t")
            await publish(world, "t")
            assert (client.payloads, await seen(viewer)) == ([b"t"], ([("t", b"t")], 0))


async def test_one_that_is_slow_loses_messages_and_is_told_how_many(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_monitor, "MAX_WAITING", 3)
    async with a_world(database_url) as world:
        with world.space.messages.watch("#") as viewer:
            await publish(world, *"abcde")
            assert await seen(viewer) == ([("a", b"a"), ("b", b"b"), ("c", b"c")], 2)
            await publish(world, "f")
            assert await seen(viewer) == ([("f", b"f")], 0)


async def test_large_messages_are_bounded_by_their_bytes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_monitor, "MAX_WAITING_BYTES", 10)
    async with a_world(database_url) as world:
        with world.space.messages.watch("#") as viewer:
            for number in range(4):
                await world.publish(str(number), b"x" * 8)
            assert await seen(viewer) == ([("0", b"x" * 8), ("1", b"x" * 8)], 2)
            for number in range(2):
                await world.publish(str(number), b"", properties=((PropertyId.CONTENT_TYPE, "text"),))
            assert await seen(viewer) == ([("0", b"")], 1)
