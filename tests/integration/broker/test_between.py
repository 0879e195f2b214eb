"""What goes from one worker's publishers to clients of another: once for all, and no more than there is room for."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from birthmark.broker import Broker, SpaceRules, store
from birthmark.broker.bus_requests import AppendRequest, DeliverRequest
from birthmark.broker.errors import SessionTakenError
from birthmark.broker.model import BrokerMessage, decode_messages
from birthmark.broker.publisher_backpressure import WINDOW_BYTES
from birthmark.broker.session_queue_writer import _MOST_BYTES
from birthmark.bus.ports import WorkerUnreachableError
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Changes, Event, Statement, open_database
from support.fakes import FakeClock
from support.mqtt.broker_world import Client, Observer, World

pytestmark = pytest.mark.integration
SIZE = 100_000


class Between:
    """A bus that hands on at once; `gate` holds up what is asked of others."""

    def __init__(self, worker: str, all_of_them: "dict[str, Between]") -> None:
        self.worker, self._all = worker, all_of_them
        all_of_them[worker] = self
        self._handlers: dict[type, Callable[[Any], Awaitable[Any]]] = {}
        self._hearing: defaultdict[type, list[Callable[[Any], None]]] = defaultdict(list)
        self.asked: list[Any] = []
        self.is_slow = False
        self.gate = asyncio.Event()
        self.gate.set()

    def on(self, kind: type, handler: Callable[[Any], None]) -> None:
        self._hearing[kind].append(handler)

    def on_missed(self, handler: object) -> None: ...

    async def catch_up(self) -> None: ...

    def announce(self, event: Event) -> None:
        for one in self._all.values():
            for handler in one._hearing[type(event)]:
                handler(event)

    async def confirm(self, event: Event) -> None:
        self.announce(event)

    def serve(self, kind: type, handler: Callable[[Any], Awaitable[Any]]) -> None:
        self._handlers[kind] = handler

    def die(self) -> None:
        """Be out of reach for the others."""
        del self._all[self.worker]

    async def ask(self, worker: str, request: Any, timeout_s: float = 5.0) -> Any:
        del timeout_s
        self.asked.append(request)
        await self.gate.wait()
        if self.is_slow:
            await asyncio.sleep(0.002)
        if worker not in self._all:
            raise WorkerUnreachableError(worker=worker)
        return await self._all[worker]._handlers[type(request)](request)


@contextlib.asynccontextmanager
async def two_workers(database_url: str) -> AsyncIterator[tuple[World, World, Between]]:
    """Where messages are published, where clients are connected, and the bus of the first."""
    async with contextlib.AsyncExitStack() as stack:
        found, buses, clock = [], dict[str, Between](), FakeClock()
        for name in ("w1", "w2"):
            database = await open_database(database_url, clock, worker=name)
            stack.push_async_callback(database.close)
            world = World(database, clock, SpaceRules())
            world.broker = Broker(database, clock, name, Between(name, buses))  # type: ignore[arg-type] # as much as is used
            await world.broker.load()
            await world.broker.join()
            world.observer = Observer()
            world.space = world.observer.space = world.broker.space("test", world.rules, world.observer)
            await world.broker.start()
            stack.push_async_callback(world.broker.stop)
            found.append(world)
        yield found[0], found[1], buses["w1"]


async def test_a_message_goes_to_another_worker_once_however_many_of_its_clients_get_it(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, bus):
        clients = [await there.connect(f"c{number}") for number in range(5)]
        for client in clients:
            await there.subscribe(client, "t")
        await here.publish("t", b"hello", qos=0)
        await there.broker.wait_until_settled()
        assert [
            len(one.clients) for asked in bus.asked if isinstance(asked, DeliverRequest) for one in asked.letters
        ] == [5]
        assert [client.payloads for client in clients] == [[b"hello"]] * 5


async def test_messages_that_come_together_go_to_another_worker_together(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, bus):
        client = await there.connect("c")
        await there.subscribe(client, "t")
        messages = [BrokerMessage("t", b"%d" % number, 1, principal=f"p{number}") for number in range(20)]
        await here.publish("t", b"first")  # and know where they go
        bus.asked.clear()
        await asyncio.gather(*map(here.space.messages.publish_one, messages))
        await here.broker.wait_until_settled()
        assert [len(asked.letters) for asked in bus.asked] == [20]
        assert client.payloads == [b"first", *(message.payload for message in messages)]


async def test_what_one_sends_goes_in_its_order_whether_by_itself_or_with_others(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, _):
        client = await there.connect("c")
        await there.subscribe(client, "t")
        sizes = [1, 9000, 1, 130_000, 1, 1, 20_000, 1]
        messages = [BrokerMessage("t", b"%d" % number * size, 1, publisher="p") for number, size in enumerate(sizes)]
        await here.publish("t", b"first")
        for message in messages:
            here.space.messages.publish((message,), lambda _problem: None)
        await here.broker.wait_until_settled()
        assert client.payloads == [b"first", *(message.payload for message in messages)]


async def test_what_is_large_keeps_nobody_elses_room(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, bus):
        client = await there.connect("c")
        await there.subscribe(client, "t")
        await here.publish("t", b"first")
        bus.asked.clear()
        large, small = (BrokerMessage("t", b"x" * size, 1, principal=f"of {size}") for size in (SIZE, 1))
        await asyncio.gather(*map(here.space.messages.publish_one, (large, small, large)))
        await here.broker.wait_until_settled()
        assert [len(asked.letters) for asked in bus.asked] == [1, 1, 1]


async def test_who_was_connected_to_another_worker_was_seen_though_nothing_of_it_is_kept(database_url: str) -> None:
    """A clean session that is over has no row: devices that had come counted as never seen at half of the workers."""
    async with two_workers(database_url) as (here, there, _):
        kept, gone = await there.connect("kept"), await there.connect("gone")
        there.space.disconnect(gone.attached, CloseReason.DISCONNECT, with_will=False)
        await there.broker.wait_until_settled()
        seen = await here.space.get_last_contacts(["gone", "kept", "never"])
        assert {client: one.reason for client, one in seen.items()} == {"gone": CloseReason.DISCONNECT, "kept": None}
        assert kept.ended is None


async def test_who_is_connected_is_counted_at_all_workers(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, _):
        for world, names in ((here, "ab"), (there, "cde")):
            for name in names:
                await world.connect(name)
        assert await here.broker.connected() == await there.broker.connected() == {"test": 5}


@pytest.mark.parametrize("expiry_s", [0, 600])
async def test_each_session_of_a_dead_worker_is_freed_once_however_many_clients_return(
    database_url: str, monkeypatch: pytest.MonkeyPatch, expiry_s: int
) -> None:
    names = [f"c{number}" for number in range(60)]
    async with two_workers(database_url) as (here, there, bus):
        for name in names:
            await there.connect(name, expiry_s=expiry_s, clean=False)
        freed, held = list[str](), list[str]()
        real = here.database.commit

        async def commit(changes: Changes) -> None:
            wrote = [write for write in changes.writes if write.statement in {store.FREE, store.DELETE}]
            freed.extend(write.params.get("key_client") or write.params["client"] for write in wrote)
            await real(changes)

        async def free(owner: str) -> None:
            held.append(owner)
            await asyncio.sleep(0.01)

        monkeypatch.setattr(here.database, "commit", commit)
        monkeypatch.setattr(here.broker, "_freeing", free)
        bus._all["w2"].die()
        await here.database.commit(Changes().run(store.LEAVE, id="w2"))
        found = await asyncio.gather(*(here.connect(name, expiry_s=600, clean=False) for name in names))
        assert all(one.ended is None for one in found)
        assert {*freed} == {*names}
        assert len(freed) <= 2 * len(names)  # a client, and the worker that looks for those who do not return
        assert held[:1] == ["w2"]
        assert len(held) <= 2


class Looks:
    """Counts how often who gets a message is looked up."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.count, self._all = 0, world.database.all
        patch.setattr(world.database, "all", self._looked)

    async def _looked(self, statement: Statement, /, **params: Any) -> Any:
        self.count += statement is store.MATCHING_ANYWHERE
        return await self._all(statement, **params)


async def test_who_gets_the_messages_of_a_topic_is_looked_up_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_workers(database_url) as (here, there, _):
        client = await there.connect("c")
        await there.subscribe(client, "t/+")
        looks = Looks(here, monkeypatch)
        for _ in range(5):
            await here.publish("t/1")
        assert (looks.count, len(client.got)) == (1, 5)


@pytest.mark.parametrize("expiry_s", [0, 600])
async def test_a_shared_subscription_is_looked_up_once_and_its_members_are_those_that_are_connected(
    database_url: str, monkeypatch: pytest.MonkeyPatch, expiry_s: int
) -> None:
    async with two_workers(database_url) as (here, there, _):
        members = [await world.connect(f"c{number}", expiry_s=expiry_s) for number, world in enumerate((here, there))]
        for member, world in zip(members, (here, there), strict=True):
            await world.subscribe(member, "$share/g/t")
        looks = Looks(here, monkeypatch)
        for _ in range(10):
            await here.publish("t")
        await there.broker.wait_until_settled()
        assert (looks.count, [len(member.got) for member in members]) == (1, [5, 5])
        members[1].acknowledge()
        await there.leave(members[1])
        for _ in range(4):
            await here.publish("t")
        assert len(members[0].got) == 9
        members[1] = await there.connect("c1", expiry_s=600, clean=False)
        await there.subscribe(members[1], "$share/g/t")
        for _ in range(4):
            await here.publish("t")
        await there.broker.wait_until_settled()
        assert len(members[1].got) == 2


async def test_what_is_known_of_a_topic_is_forgotten_when_somebody_subscribes_elsewhere(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, _):
        clients = []
        for number in range(4):
            clients.append(client := await there.connect(f"c{number}", expiry_s=600 * (number % 2)))
            await there.subscribe(client, "t" if number < 2 else "+")
            await here.publish("t", b"%d" % number)
        await there.broker.wait_until_settled()
        assert [client.payloads for client in clients] == [[b"%d" % at for at in range(n, 4)] for n in range(4)]


@pytest.mark.parametrize("expiry_s", [0, 600])
async def test_who_unsubscribes_elsewhere_gets_nothing_more(database_url: str, expiry_s: int) -> None:
    async with two_workers(database_url) as (here, there, _):
        client = await there.connect("c", expiry_s=expiry_s)
        await there.subscribe(client, "t")
        await here.publish("t", b"before")
        await there.space.subscriptions.unsubscribe(client.attached, ["t"])
        await here.publish("t", b"after")
        await there.broker.wait_until_settled()
        assert client.payloads == [b"before"]


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_client_that_goes_on_at_another_worker_gets_what_comes_from_then_on(
    database_url: str, qos: int
) -> None:
    async with two_workers(database_url) as (here, there, _):
        before = await there.connect("c", expiry_s=600, clean=False)
        await there.subscribe(before, "t")
        await here.publish("t", b"before", qos)
        await there.broker.wait_until_settled()
        before.acknowledge()
        after = await here.connect("c", expiry_s=600, clean=False)
        await there.publish("t", b"after", qos)
        await here.broker.wait_until_settled()
        assert (before.payloads, after.payloads) == ([b"before"], [b"after"])


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("expiry_s", [0, 600])
async def test_a_session_that_begins_anew_gets_nothing_that_the_one_before_asked_for(
    database_url: str, expiry_s: int, *, leaves: bool
) -> None:
    async with two_workers(database_url) as (here, there, _):
        before = await there.connect("c", expiry_s=expiry_s)
        await there.subscribe(before, "t")
        await here.publish("t", b"before")
        if leaves:
            await there.leave(before, expiry_s=0)
        after = await there.connect("c", expiry_s=expiry_s, clean=True)
        await here.publish("t", b"after")
        await there.broker.wait_until_settled()
        assert (before.payloads, after.payloads) == ([b"before"], [])


async def test_a_session_that_goes_from_worker_to_worker_keeps_none_of_its_publishers_waiting(
    database_url: str,
) -> None:
    async with two_workers(database_url) as (here, there, bus):
        client, is_over, got = await here.connect("c", expiry_s=600), False, set[bytes]()
        await here.subscribe(client, "t")

        async def publish(world: World, who: str) -> list[bytes]:
            sent: list[bytes] = []
            while not is_over:
                sent.append(f"{who} {len(sent)}".encode())
                await world.space.messages.publish_one(BrokerMessage("t", sent[-1], 1, publisher=who))
            return sent

        bus.is_slow = bus._all["w2"].is_slow = True
        publishing = [asyncio.create_task(publish(one, f"{n}")) for n, one in enumerate((here, there, here, there))]
        for number in range(30):
            async with asyncio.timeout(20):
                client = await comes((there, here)[number % 2])
            client.attached.resume()
            await asyncio.sleep(0.01)
            got |= set(client.payloads)
            client.acknowledge()
        is_over = True
        async with asyncio.timeout(20):
            sent = await asyncio.gather(*publishing)
            await until(lambda: got.issuperset(payload for one in sent for payload in one), client, got)


async def comes(world: World) -> Client:
    """Connect as a device does: who was overtaken by what is published comes again."""
    while True:
        with contextlib.suppress(SessionTakenError):
            return await world.connect("c", expiry_s=600, clean=False, held=True)


async def until(condition: Callable[[], bool], client: Client, got: set[bytes]) -> None:
    while not condition():
        await asyncio.sleep(0.01)
        got |= set(client.payloads)
        client.acknowledge()


async def test_who_publishes_more_than_is_underway_waits(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, bus):
        client = await there.connect("c")
        await there.subscribe(client, "t")
        bus.gate.clear()
        publishing = asyncio.create_task(here.space.messages.publish_one(BrokerMessage("t", b"x" * SIZE, 0)))
        await publishing
        waiting = [
            asyncio.create_task(here.space.messages.publish_one(BrokerMessage("t", b"x" * SIZE, 0, publisher="p")))
            for _ in range(WINDOW_BYTES // SIZE + 2)
        ]
        await asyncio.sleep(0.2)
        assert not waiting[-1].done()
        bus.gate.set()
        await asyncio.gather(*waiting)  # there is room for the last ones, which may still be on their way
        await here.broker.wait_until_settled()
        assert len(here.broker.in_flight) == 0


async def test_large_messages_for_a_session_at_another_worker_go_in_portions(database_url: str) -> None:
    async with two_workers(database_url) as (here, there, bus):
        client = await there.connect("c", expiry_s=600)
        await there.subscribe(client, "t")
        await asyncio.gather(
            *(
                here.space.messages.publish_one(BrokerMessage("t", b"%d" % number + b"x" * SIZE, 1))
                for number in range(30)
            )
        )
        await there.broker.wait_until_settled()
        portions = [decode_messages(one.messages) for one in bus.asked if isinstance(one, AppendRequest)]
        assert sum(map(len, portions)) == 30
        assert max(sum(one.size for one in some) for some in portions) <= _MOST_BYTES + SIZE
