"""Messages to devices on both databases: locks, deliveries, ends and what is told of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from birthmark.broker.errors import DeviceQueueFullError, LockLostError
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.errors import UnavailableError
from birthmark.iothub.model import (
    AuthenticationType,
    C2dMessage,
    DeviceAuthentication,
    DeviceIdInvalidError,
    Hub,
    space_of,
)
from birthmark.iothub.rules.c2d import FEEDBACK
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.iothub.wire import DeviceBody, registry_time
from birthmark.store import Database, open_database
from support.fakes import FakeClock, SeededEntropy
from support.store.between import lose_the_next_answer

pytestmark = pytest.mark.integration
SPACE, DEVICE = space_of("main"), "d"


class World:
    def __init__(self, iothub: IotHub, hub: Hub, clock: FakeClock, database: Database) -> None:
        self.iothub, self.hub, self.clock, self.database = iothub, hub, clock, database
        self.inboxes = iothub.c2d.inboxes

    async def send(self, text: str = "x", feedback: str = "full", expiry: str | None = None) -> QueuedMessage:
        mail = C2dMessage(text.encode(), {}, {})
        return await self.iothub.c2d.send(
            self.hub, DEVICE, mail, message_id=f"m-{text}", feedback=feedback, expiry=expiry, actor="test"
        )

    async def taken(self) -> QueuedMessage:
        letter = await self.inboxes.take(SPACE, DEVICE)
        assert letter is not None
        assert letter.lock is not None
        return letter

    async def told(self) -> list[tuple[str, str]]:
        letters = await self.iothub.c2d.feedback.letters(SPACE, FEEDBACK)
        records = [self.iothub.c2d.record_of(letter) for letter in letters]
        return [(record["originalMessageId"], record["statusCode"]) for record in records]


@contextlib.asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        iothub = IotHub.of(database, clock, SeededEntropy())
        hub = await iothub.hubs.create("main", "hub.example", actor="test")
        wanted = DeviceAuthentication(AuthenticationType.SAS)
        await iothub.registry.put(hub, DEVICE, DeviceBody(DEVICE), wanted, None, actor="test")
        yield World(iothub, hub, clock, database)
    finally:
        await database.close()


async def test_many_who_write_to_one_device_at_once_are_all_taken(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send("first")
        sent = await asyncio.gather(*(world.send(str(number)) for number in range(30)))
        assert [letter.id for letter in sent] == [f"m-{number}" for number in range(30)]
        assert await world.inboxes.count(SPACE, DEVICE) == 31


async def test_letters_are_taken_in_their_order_and_settled_by_their_lock(database_url: str) -> None:
    async with a_world(database_url) as world:
        for text in ("a", "b"):
            await world.send(text)
        first, second = await world.taken(), await world.taken()
        assert (first.id, second.id) == ("m-a", "m-b")
        assert await world.inboxes.take(SPACE, DEVICE) is None
        await world.inboxes.settle(SPACE, DEVICE, second.lock or "", QueueOutcome.COMPLETED)
        await world.inboxes.settle(SPACE, DEVICE, first.lock or "", QueueOutcome.REJECTED)
        assert await world.told() == [("m-b", "Success"), ("m-a", "Rejected")]


async def test_a_record_says_when_the_end_was_and_which_device_of_that_name_it_was(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        letter = await world.taken()
        world.clock.move(timedelta(seconds=10))
        await world.inboxes.settle(SPACE, DEVICE, letter.lock or "", QueueOutcome.COMPLETED)
        (told,) = await world.iothub.c2d.feedback.letters(SPACE, FEEDBACK)
        record = world.iothub.c2d.record_of(told)
        device = await world.iothub.registry.device(world.hub, DEVICE)
        assert record["enqueuedTimeUtc"] == registry_time(world.clock.now())
        assert record["deviceGenerationId"] == device.generation_id


async def test_a_lock_that_ran_out_settles_nothing_and_the_letter_comes_again(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        letter = await world.taken()
        world.clock.move(timedelta(seconds=60))
        with pytest.raises(LockLostError):
            await world.inboxes.settle(SPACE, DEVICE, letter.lock or "", QueueOutcome.COMPLETED)
        again = await world.taken()
        assert (again.id, again.deliveries) == (letter.id, 2)
        with pytest.raises(LockLostError):
            await world.inboxes.settle(SPACE, DEVICE, letter.lock or "", QueueOutcome.COMPLETED)
        await world.inboxes.settle(SPACE, DEVICE, again.lock or "", QueueOutcome.COMPLETED)


async def test_what_is_given_back_ten_times_is_a_dead_letter(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        for _ in range(10):
            letter = await world.taken()
            await world.inboxes.abandon(SPACE, DEVICE, letter.lock or "")
        assert await world.inboxes.take(SPACE, DEVICE) is None
        assert await world.told() == [("m-x", "DeliveryCountExceeded")]


async def test_a_letter_that_went_nowhere_was_not_delivered(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        for _ in range(11):
            await world.inboxes.restore(SPACE, DEVICE, await world.taken())
        assert (await world.taken()).deliveries == 1


async def test_a_letter_whose_lock_ran_out_is_not_taken_back_from_who_has_it_now(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        before = await world.taken()
        world.clock.move(timedelta(seconds=60))
        now = await world.taken()
        await world.inboxes.restore(SPACE, DEVICE, before)
        assert await world.inboxes.letters(SPACE, DEVICE) == [now]


async def test_a_letter_that_nobody_takes_expires_and_its_end_is_told(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send("late", "negative", "2026-06-01T12:00:10Z")
        await world.send("quiet", "positive", "2026-06-01T12:00:10Z")
        await world.send("kept")
        world.clock.move(timedelta(seconds=10))
        assert await world.inboxes.dead_letter_expired() is not None
        assert [letter.id for letter in await world.inboxes.letters(SPACE, DEVICE)] == ["m-kept"]
        assert await world.told() == [("m-late", "Expired")]


async def test_fifty_wait_and_no_more(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(50):
            await world.send(str(number))
        with pytest.raises(DeviceQueueFullError):
            await world.send("one more")
        assert await world.inboxes.purge(SPACE, DEVICE) == 50
        assert len(await world.told()) == 50


async def test_a_device_that_is_removed_takes_its_letters_along(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        await world.iothub.registry.remove(world.hub, DEVICE, None, actor="test")
        assert await world.inboxes.letters(SPACE, DEVICE) == []
        with pytest.raises(UnknownDeviceError):
            await world.send()


async def test_no_device_has_the_name_of_the_services_own_inbox(database_url: str) -> None:
    async with a_world(database_url) as world:
        wanted = DeviceAuthentication(AuthenticationType.SAS)
        with pytest.raises(DeviceIdInvalidError):
            await world.iothub.registry.put(world.hub, FEEDBACK, DeviceBody(FEEDBACK), wanted, None, actor="test")


async def test_a_letter_whose_lock_was_kept_without_an_answer_comes_before_the_next_one(postgres_url: str) -> None:
    async with a_world(postgres_url) as world:
        await world.send("first")
        await world.send("second")
        lose_the_next_answer(world.database)
        with pytest.raises(UnavailableError):
            await world.taken()
        again, after = await world.taken(), await world.taken()
        assert (again.id, again.deliveries) == ("m-first", 2)
        assert after.id == "m-second"


async def test_a_lock_of_a_clock_that_was_ahead_holds_no_longer_than_one_may(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send()
        world.clock.jump(timedelta(minutes=30))
        first = await world.taken()
        world.clock.jump(timedelta(minutes=-30))
        assert (await world.taken()).id == first.id


async def test_a_clock_that_is_ahead_for_a_moment_ends_no_letter(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send("soon")
        await world.send("late", expiry="2026-06-02T12:00:00Z")
        world.clock.jump(timedelta(hours=3))
        await world.inboxes.dead_letter_expired()
        assert (await world.taken()).id == "m-late", "what may be over is nobody's now"
        assert await world.inboxes.take(SPACE, DEVICE) is None
        world.clock.jump(-timedelta(hours=3))
        assert (await world.taken()).id == "m-soon"
        assert await world.told() == []


async def test_a_letter_that_is_over_by_a_clock_that_goes_on_so_is_ended(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send("soon")
        world.clock.jump(timedelta(hours=3))
        await world.inboxes.dead_letter_expired()
        world.clock.move(timedelta(minutes=10))
        await world.inboxes.dead_letter_expired()
        assert await world.told() == [("m-soon", "Expired")]
