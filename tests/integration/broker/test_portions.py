"""A message to very many: handed on, looked up and committed in portions, with everybody else's work between them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from birthmark.broker import message_fan_out as publisher
from birthmark.broker import session_queue_writer, topic_router
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.model import BrokerMessage
from birthmark.broker.topic_router import Receiver, SharedSubscription
from birthmark.errors import UnavailableError
from birthmark.net import fair_scheduler
from birthmark.net.fair_scheduler import SLICE_S, TURN_S
from birthmark.store import Changes
from support.mqtt.broker_world import HOUR, Client, World, a_world

pytestmark = pytest.mark.integration

PORTION, MANY = 8, 40


@pytest.fixture(autouse=True)
def portions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (topic_router, publisher):
        monkeypatch.setattr(module, "PORTION", PORTION)
    monkeypatch.setattr(publisher, "_FEW", PORTION // 2)
    monkeypatch.setattr(session_queue_writer, "MAX_SESSIONS", PORTION)
    monkeypatch.setattr(session_queue_writer, "_STEPS", 1)


@pytest.fixture
def used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each look at the clock find that a slice is used up."""
    ticks = count()
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks) * 2 * SLICE_S)


async def stored(world: World, number: int = MANY, *names: str) -> list[Client]:
    """Return clients that subscribed, and whose sessions wait for them."""
    clients = []
    for one in range(number):
        client = await world.connect(f"c{one:02}", expiry_s=HOUR)
        await world.subscribe(client, *(names or ("all",)))
        await world.leave(client)
        clients.append(client)
    return clients


async def queued(world: World, client: Client) -> list[bytes]:
    return [message.payload for _, message in await world.space.queued_after(client.client_id, 0)]


@contextmanager
def sizes_of_commits(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    sizes: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(world.database.commits, "sizes", SimpleNamespace(observe=sizes.append))
        yield sizes


async def test_queues_of_very_many_are_written_in_portions_and_others_commit_between(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        clients = await stored(world)
        with sizes_of_commits(world, monkeypatch) as sizes:
            publishing = asyncio.create_task(world.space.messages.publish_one(BrokerMessage("all", b"x", 1)))
            others = 0
            while not publishing.done():
                await world.database.commit(Changes())
                others += 1
            await publishing
        assert max(sizes) <= PORTION + 2, "with the message itself, and another's commit"
        assert others > 3
        assert [await queued(world, client) for client in clients] == [[b"x"]] * MANY


async def test_a_publisher_is_told_when_the_last_portion_is_durable_and_not_before(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        clients = await stored(world)
        submit, commits, durable_when_told = world.database.submit, list[asyncio.Future[None]](), list[bool]()

        def noted(changes: Changes) -> "asyncio.Future[None]":
            commits.append(submit(changes))
            return commits[-1]

        def told(problem: BaseException | None) -> None:
            durable_when_told.extend(commit.done() for commit in commits)
            done(problem)

        monkeypatch.setattr(world.database, "submit", noted)
        safe, done = until_done()
        waiting = world.space.messages.publish((BrokerMessage("all", b"x", 1),), told)
        assert waiting is not None, "the publisher is not read while it is handed on"
        await waiting
        await safe
        assert len(durable_when_told) >= MANY // PORTION
        assert all(durable_when_told)
        assert [await queued(world, client) for client in clients] == [[b"x"]] * MANY


async def test_a_publisher_hears_of_one_portion_that_failed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(database_url) as world:
        clients = await stored(world)
        submit, submitted = world.database.submit, count()

        def fail_once(changes: Changes) -> "asyncio.Future[None]":
            if next(submitted) == 30:
                failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                failed.set_exception(UnavailableError())
                return failed
            return submit(changes)

        monkeypatch.setattr(world.database, "submit", fail_once)
        with pytest.raises(UnavailableError):
            await world.space.messages.publish_one(BrokerMessage("all", b"x", 1))
        monkeypatch.undo()
        await world.publish("all", b"x")
        assert all([await queued(world, client) for client in clients]), "what is sent again arrives everywhere"


async def test_what_one_publisher_sends_keeps_its_order_for_each_receiver(database_url: str) -> None:
    async with a_world(database_url) as world:
        clients = await stored(world, MANY, "all", "few/+")
        await world.subscribe(lonely := await world.connect("lonely", expiry_s=HOUR), "lonely", "all")
        topics = ["all", "lonely", "few/1", "all", "few/2", "lonely", "all"]
        messages = [BrokerMessage(topic, str(number).encode(), 1) for number, topic in enumerate(topics)]
        safe, done = until_done()
        if (waiting := world.space.messages.publish(messages, done)) is not None:
            await waiting
        await safe
        await world.broker.wait_until_settled()
        assert [await queued(world, client) for client in clients] == [[b"0", b"2", b"3", b"4", b"6"]] * MANY
        assert lonely.payloads == [b"0", b"1", b"3", b"5", b"6"]


async def test_what_is_for_few_does_not_wait_for_what_is_for_many(database_url: str) -> None:
    async with a_world(database_url) as world:
        await stored(world)
        await world.subscribe(await world.connect("quiet", expiry_s=HOUR), "quiet")
        order: list[str] = []
        many = asyncio.create_task(world.space.messages.publish_one(BrokerMessage("all", b"x", 1)))
        many.add_done_callback(lambda _: order.append("many"))
        while not world.broker.appends._for_many:
            await asyncio.sleep(0)
        await world.space.messages.publish_one(BrokerMessage("quiet", b"x", 1))
        order.append("few")
        await many
        assert order == ["few", "many"]


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("burst", [1, 20])
@pytest.mark.usefixtures("used_up")
async def test_between_two_turns_of_the_loop_a_message_goes_to_a_few_portions(
    database_url: str, qos: int, burst: int
) -> None:
    async with a_world(database_url) as world:
        got: list[int] = []
        turn = 0
        for number in range(MANY if burst == 1 else PORTION - 1):  # one to many, or many to some
            client = await world.connect(f"live-{number}")
            client.deliver = lambda *_: got.append(turn)  # type: ignore[method-assign] # looks on
            await world.subscribe(client, "all")
        await stored(world, 2 * PORTION if burst == 1 else 0)
        messages = [BrokerMessage("all", b"x", qos)] * burst
        safe, done = until_done()
        waiting = world.space.messages.publish(messages, done)
        assert waiting is not None
        handing_on = asyncio.ensure_future(waiting)
        while not handing_on.done():
            turn += 1
            await asyncio.sleep(0)
        await safe
        most = PORTION * (TURN_S / SLICE_S + 1)
        assert len(got) in {MANY, burst * (PORTION - 1)}
        assert max(got.count(one) for one in set(got)) <= most
        assert len(set(got)) > 1


async def test_very_many_subscriptions_are_read_by_their_pages(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        clients = await stored(world, MANY, "all/#", "all/+")
        ask, sizes = world.database.all, list[int]()

        async def counted(*args: Any, **params: Any) -> Any:
            rows = await ask(*args, **params)
            sizes.append(len(rows))
            return rows

        monkeypatch.setattr(world.database, "all", counted)
        await world.publish("all/1")
        assert max(sizes) <= PORTION
        assert sum(sizes) >= 2 * MANY
        sizes.clear()
        await world.publish("all/2")
        assert sum(sizes) < PORTION, "what leads to the same filters is not read again"
        monkeypatch.undo()
        assert [await queued(world, client) for client in clients] == [[b"x", b"x"]] * MANY


async def test_members_of_a_share_that_are_all_away_are_not_looked_for_with_each_message(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        clients = await stored(world, MANY, "$share/g/all")
        looked_at: list[str] = []
        in_turn = SharedSubscription.in_turn

        def looking(share: SharedSubscription, arrivals: int) -> Iterator[Receiver]:
            for member in in_turn(share, arrivals):
                looked_at.append(member[0])
                yield member

        monkeypatch.setattr(SharedSubscription, "in_turn", looking)
        for _ in range(MANY):
            await world.publish("all")
        assert len(looked_at) == MANY + MANY - 1
        assert sorted([len(await queued(world, client)) for client in clients]) == [1] * MANY
        await world.connect(clients[5].client_id, expiry_s=HOUR, clean=False)
        for _ in range(3):
            await world.publish("all")
        assert len(await queued(world, clients[5])) == 4, "who is connected gets it"


async def test_a_message_to_many_has_the_turns_of_whoever_asked_for_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        await stored(world)
        await world.connect("here", principal="its key")
        work, owners = world.space.messages._backlog.run_in_turns, list[str]()

        def noted(steps: Any, owner: str) -> Any:
            owners.append(owner)
            return work(steps, owner)

        monkeypatch.setattr(world.space.messages._backlog, "run_in_turns", noted)
        for publisher, principal, owner in (
            ("here", "", "its key"),
            ("gone", "a will's key", "a will's key"),
            ("", "", ""),
        ):
            owners.clear()
            await world.publish("all", publisher=publisher, principal=principal)
            assert set(owners) == {owner}
