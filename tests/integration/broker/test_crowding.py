"""What one client does to others: by its comings and goings, and by what it leaves to be deleted."""

import asyncio
from datetime import timedelta

import pytest

from birthmark.broker.chunked_deletes import PORTION_BYTES
from birthmark.broker.errors import SessionTakenError
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.model import BrokerMessage
from birthmark.broker.publisher_backpressure import ROW_BYTES, UNWRITTEN_BYTES
from birthmark.broker.rules.principal_quotas import SpaceRules
from birthmark.store import Changes
from birthmark.store.sqlite import DatabaseUnavailableError
from support.mqtt.broker_world import HOUR, World, a_world, hold_what_is_submitted

BIG = 100_000


async def test_filters_are_found_whatever_another_does_to_its_own_of_that_shape(database_url: str) -> None:
    async with a_world(database_url) as world:
        victim = await world.connect("victim", expiry_s=HOUR)
        await world.subscribe(victim, "a/+/victim")
        for _ in range(3):
            other = await world.connect("other", expiry_s=HOUR)
            await world.subscribe(other, "a/+/other")
            leaving = asyncio.create_task(world.space.subscriptions.unsubscribe(other.attached, ["a/+/other"]))
            await asyncio.gather(leaving, world.connect("other"), return_exceptions=True)
        await world.publish("a/b/victim", b"one")
        await world.broker.wait_until_settled()
        assert victim.payloads == [b"one"]


async def test_shapes_that_nobody_uses_any_more_are_forgotten(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("client", expiry_s=HOUR)
        await world.subscribe(client, "a/+", "b/#")
        await world.space.subscriptions.unsubscribe(client.attached, ["a/+"])
        world.clock.move(timedelta(minutes=2))
        await world.broker.process_due_items()
        assert world.space._router.candidates("a/b") == ["a/#"]


async def test_of_many_that_come_at_once_as_one_client_the_last_one_stays(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.connect("one", expiry_s=HOUR)
        came = await asyncio.gather(*(world.connect("one", expiry_s=HOUR) for _ in range(50)), return_exceptions=True)
        refused = [one for one in came if isinstance(one, SessionTakenError)]
        assert len(refused) >= 45
        assert world.space.live["one"].connection is came[-1]


async def test_who_comes_again_and_again_keeps_no_publisher_waiting(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.subscribe(await world.connect("crowd", expiry_s=HOUR), "t")
        over = asyncio.Event()

        async def come_again() -> None:
            while not over.is_set():
                await asyncio.gather(
                    *(world.connect("crowd", expiry_s=HOUR) for _ in range(20)), return_exceptions=True
                )

        coming = asyncio.create_task(come_again())
        try:
            async with asyncio.timeout(10):
                for number in range(3):
                    await world.publish("t", b"%d" % number)
        finally:
            over.set()
            await coming


async def a_full_queue(world: World) -> None:
    """Leave a hundred large messages for a client that is away."""
    client = await world.connect("full", expiry_s=HOUR)
    await world.subscribe(client, "t")
    await world.leave(client)
    for number in range(100):
        await world.publish("t", bytes([number]) * BIG)


async def test_a_large_queue_is_dropped_by_many_small_commits(database_url: str) -> None:
    async with a_world(database_url) as world:
        await a_full_queue(world)
        before = sum(world.database.commits.seconds.counts)
        client = await world.connect("full")
        assert sum(world.database.commits.seconds.counts) - before >= 100 * BIG // PORTION_BYTES
        await world.subscribe(client, "t")
        await world.publish("t", b"new")
        assert client.payloads == [b"new"]


async def test_large_queues_that_are_dropped_at_once_take_turns(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = [f"full-{number}" for number in range(6)]
        for name in names:
            client = await world.connect(name, expiry_s=HOUR)
            await world.subscribe(client, name)
            await world.leave(client)
            for _ in range(18):
                await world.publish(name, b"x" * BIG)
        before = sum(world.database.commits.seconds.counts)
        await asyncio.gather(*map(world.connect, names))
        assert sum(world.database.commits.seconds.counts) - before >= 6 * 18 * BIG // PORTION_BYTES
        assert [await world.space.queued_after(name, 0) for name in names] == [[]] * 6


async def test_a_session_that_expired_with_a_large_queue_goes_by_small_commits(database_url: str) -> None:
    async with a_world(database_url) as world:
        await a_full_queue(world)
        world.clock.move(timedelta(hours=2))
        await world.broker.process_due_items()
        assert await world.space.record("full") is None
        assert await world.space.queued_after("full", 0) == []


async def test_retained_messages_that_expired_go_by_portions_of_bytes(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=1000)) as world:
        soon = world.space.now() + 1_000_000
        for number in range(60):
            await world.publish(f"t/{number}", b"x" * BIG, retain=True, expires_at=soon)
        await world.publish("stays", b"x", retain=True)
        world.clock.move(timedelta(minutes=2))
        await world.broker.process_due_items()
        assert world.space.retained.count == 1


async def test_a_share_is_kept_as_long_as_its_rows_are(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=16)) as world:
        first = world.space.now()
        for topic in "abcd":
            await world.publish(topic, b"x", retain=True, principal="one", expires_at=first + 1_000_000)
        await world.space.retained.recount(first + 999_999, 0)
        assert not world.space.retained._shares.has_room("one", 16)


async def away(world: World, *clients: str, topic: str = "t") -> None:
    """Leave stored sessions that get what is published to a topic."""
    for name in clients:
        client = await world.connect(name, expiry_s=HOUR)
        await world.subscribe(client, topic)
        await world.leave(client)


def flooding(world: World, *payloads: bytes, of: str = "flood") -> asyncio.Task[None]:
    """Publish one after the other, as one connection of a key does."""

    async def publish() -> None:
        for payload in payloads:
            waiting = world.space.messages.publish(
                (BrokerMessage("t", payload, 1, principal=of),), lambda _problem: None
            )
            if waiting is not None:
                await waiting

    return asyncio.create_task(publish())


@pytest.mark.parametrize(("sessions", "size"), [(1, BIG), (500, 20)])
async def test_what_one_key_has_waiting_for_the_disk_is_bounded_whatever_its_connections(
    database_url: str, monkeypatch: pytest.MonkeyPatch, sessions: int, size: int
) -> None:
    """A device took 12 MiB of memory for each of its connections, and kept others waiting for all of it."""
    async with a_world(database_url) as world:
        await away(world, *(f"s{number}" for number in range(sessions)))
        go_on = hold_what_is_submitted(world.database, monkeypatch)
        floods = [flooding(world, *[bytes(size)] * 20) for _ in range(10)]
        async with asyncio.timeout(10):
            while world.broker.unwritten._bytes.get("flood", 0) <= UNWRITTEN_BYTES:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        held, last = world.broker.unwritten._bytes["flood"], len(floods) * (size + sessions * ROW_BYTES)
        assert held <= UNWRITTEN_BYTES + last  # each connection's last one went beyond
        assert not any(flood.done() for flood in floods)
        other = asyncio.create_task(world.space.messages.publish_one(BrokerMessage("t", b"mine", 1, principal="other")))
        await asyncio.sleep(0.05)
        go_on.set()
        await other
        assert not all(flood.done() for flood in floods)
        await asyncio.gather(*floods)
        await world.broker.wait_until_settled()
        assert len(world.broker.unwritten) == 0


async def test_a_burst_larger_than_the_bound_is_written_all_the_same(database_url: str) -> None:
    async with a_world(database_url) as world:
        await away(world, "s")
        burst = [BrokerMessage("t", bytes([number]) * BIG, 1, principal="flood") for number in range(40)]
        safe, done = until_done()
        if (waiting := world.space.messages.publish(burst, done)) is not None:
            await waiting
        await safe
        assert len(world.broker.unwritten) == 0
        client = await world.connect("s", expiry_s=HOUR, clean=False)
        client.acknowledge()
        assert len(client.payloads) == 40


async def test_what_could_not_be_written_counts_no_more(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(database_url) as world:
        await away(world, "s")

        def refused(_changes: Changes) -> asyncio.Future[None]:
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(DatabaseUnavailableError(where="here", reason="full"))
            return failed

        monkeypatch.setattr(world.database, "submit", refused)
        floods = [flooding(world, *[bytes(BIG)] * 20) for _ in range(3)]
        await asyncio.gather(*floods)
        await world.broker.wait_until_settled()
        assert len(world.broker.unwritten) == 0
