"""Deliveries between connections, and what waits for those who are away, on both databases."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from birthmark.awsiot.service import broker as broker_module
from birthmark.awsiot.service.broker import SESSION_LIFETIME, Broker
from birthmark.mqtt.topics import TreeFullError
from birthmark.store import Database, open_database
from fakes import FakeClock

pytestmark = pytest.mark.integration


class Client:
    """A connection that keeps what it gets."""

    def __init__(self, client_id: str, *, is_persistent: bool = False, session_present: bool = False) -> None:
        self.client_id = client_id
        self.is_persistent = is_persistent
        self.session_present = session_present
        self.got: list[tuple[str, bytes, int]] = []
        self.woken = 0

    def deliver(self, topic: str, payload: bytes, qos: int) -> None:
        self.got.append((topic, payload, qos))

    def wake(self) -> None:
        self.woken += 1


async def connect(broker: Broker, client_id: str, *, is_persistent: bool = False) -> Client:
    present = await broker.open(client_id, is_persistent=is_persistent)
    client = Client(client_id, is_persistent=is_persistent, session_present=present)
    broker.enter(client)
    return client


async def publish(broker: Broker, topic: str, payload: bytes, qos: int = 1) -> None:
    waiting = broker.route(topic, payload, qos)
    if waiting is not None:
        await waiting


@contextlib.asynccontextmanager
async def a_broker(database_url: str) -> AsyncIterator[tuple[Broker, Database, FakeClock]]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        broker = Broker(database, clock)
        await broker.load()
        yield broker, database, clock
        await broker.settled()
    finally:
        await database.close()


async def restarted(database: Database, clock: FakeClock, old: Broker) -> Broker:
    await old.settled()
    broker = Broker(database, clock)
    await broker.load()
    return broker


async def stored(broker: Broker, client_id: str) -> list[bytes]:
    return [payload for _, _, payload in await broker.stored_after(client_id, 0, 100)]


async def test_a_message_goes_to_who_subscribed_with_the_lower_qos(database_url: str) -> None:
    async with a_broker(database_url) as (broker, _database, _clock):
        first, second = await connect(broker, "a"), await connect(broker, "b")
        await broker.subscribe(first, {"t/+": 0, "t/#": 1})
        await broker.subscribe(second, {"t": 1, "t/#": 0})
        await publish(broker, "t/x", b"1")
        await publish(broker, "t", b"2")
        assert first.got == [("t/x", b"1", 1)]  # AWS: t/# does not match t
        assert second.got == [("t/x", b"1", 0), ("t", b"2", 1)]
        await broker.unsubscribe(first, ("t/+", "t/#"))
        broker.leave(second)
        await publish(broker, "t/x", b"3")
        assert len(first.got) == 1
        assert len(second.got) == 2


async def test_a_stored_session_keeps_filters_and_qos_1_messages_over_a_restart(database_url: str) -> None:
    async with a_broker(database_url) as (broker, database, clock):
        client = await connect(broker, "kept", is_persistent=True)
        await broker.subscribe(client, {"t/#": 1, "gone": 1})
        await broker.unsubscribe(client, ("gone",))
        await publish(broker, "t/1", b"1")
        assert client.woken == 1
        assert client.got == []  # it reads the stored one
        broker.leave(client)
        await publish(broker, "t/2", b"2")
        await publish(broker, "t/3", b"3", qos=0)
        anew = await restarted(database, clock, broker)
        await publish(anew, "t/4", b"4")
        again = await connect(anew, "kept", is_persistent=True)
        assert again.session_present
        assert dict(anew.filters_of("kept")) == {"t/#": 1}
        assert await stored(anew, "kept") == [b"1", b"2", b"4"]
        number = (await anew.stored_after("kept", 0, 1))[0][0]
        anew.delivered("kept", number)
        await anew.settled()
        assert await stored(anew, "kept") == [b"2", b"4"]


async def test_a_clean_session_ends_the_stored_one(database_url: str) -> None:
    async with a_broker(database_url) as (broker, _database, _clock):
        client = await connect(broker, "c", is_persistent=True)
        await broker.subscribe(client, {"t": 1})
        broker.leave(client)
        clean = await connect(broker, "c")
        await publish(broker, "t", b"1")
        assert clean.got == []
        broker.leave(clean)
        again = await connect(broker, "c", is_persistent=True)
        assert not again.session_present
        assert await stored(broker, "c") == []


async def test_a_stored_session_runs_out(database_url: str) -> None:
    async with a_broker(database_url) as (broker, database, clock):
        for name in ("early", "late"):
            client = await connect(broker, name, is_persistent=True)
            await broker.subscribe(client, {"t": 1})
            broker.leave(client)
            clock.move(timedelta(minutes=10))
        clock.move(SESSION_LIFETIME - timedelta(minutes=15))
        anew = await restarted(database, clock, broker)
        await publish(anew, "t", b"1")
        assert (await connect(anew, "late", is_persistent=True)).session_present
        assert not (await connect(anew, "early", is_persistent=True)).session_present
        assert await stored(anew, "late") == [b"1"]


async def test_who_was_connected_at_a_crash_has_the_whole_time_to_come_back(database_url: str) -> None:
    async with a_broker(database_url) as (broker, database, clock):
        client = await connect(broker, "c", is_persistent=True)
        await broker.subscribe(client, {"t": 1})
        clock.move(timedelta(days=2))
        anew = await restarted(database, clock, broker)
        clock.move(SESSION_LIFETIME - timedelta(minutes=1))
        assert (await connect(anew, "c", is_persistent=True)).session_present


async def test_a_stored_session_takes_a_limited_number(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "MAX_STORED", 3)

    async with a_broker(database_url) as (broker, _database, _clock):
        client = await connect(broker, "c", is_persistent=True)
        await broker.subscribe(client, {"t": 1})
        broker.leave(client)
        for number in range(5):
            await publish(broker, "t", str(number).encode())
        assert await stored(broker, "c") == [b"0", b"1", b"2"]


async def test_a_takeover_is_seen_and_the_old_connection_changes_nothing_more(database_url: str) -> None:
    async with a_broker(database_url) as (broker, _database, _clock):
        first = await connect(broker, "c")
        second = Client("c")
        assert broker.enter(second) is first
        await broker.subscribe(second, {"t": 0})
        broker.leave(first)
        await publish(broker, "t", b"1")
        assert second.got == [("t", b"1", 0)]


async def test_sessions_end_when_nobody_connects_too(database_url: str) -> None:
    async with a_broker(database_url) as (broker, _database, clock):
        broker.leave(await connect(broker, "away", is_persistent=True))
        await broker.settled()
        clock.move(SESSION_LIFETIME)
        await broker.expire()
        client = await connect(broker, "away", is_persistent=True)
        assert not client.session_present


async def test_of_too_many_sessions_the_one_that_is_away_longest_goes(
    database_url: str,
) -> None:
    async with a_broker(database_url) as (_broker, database, clock):
        broker = Broker(database, clock, max_sessions=2)
        for name in ("first", "second"):
            broker.leave(await connect(broker, name, is_persistent=True))
            clock.move(timedelta(minutes=1))
        await broker.settled()
        await connect(broker, "third", is_persistent=True)
        assert (await connect(broker, "second", is_persistent=True)).session_present
        with pytest.raises(broker_module.TooManySessionsError):  # all of them are connected
            await broker.open("first", is_persistent=True)


async def test_subscriptions_of_all_clients_together_are_bounded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MAX_SUBSCRIPTIONS", 2)
    async with a_broker(database_url) as (broker, _, _):
        await broker.subscribe(await connect(broker, "a"), {"x": 0, "y": 0})
        with pytest.raises(TreeFullError):
            await broker.subscribe(await connect(broker, "b"), {"z": 0})
