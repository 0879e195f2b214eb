"""Consumer groups and exclusive readers on both databases, also by two workers at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub.model import Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.consumer_groups import (
    MAX_GROUPS,
    ConsumerGroupNameError,
    ConsumerGroups,
    DefaultGroupError,
    TooManyConsumerGroupsError,
    UnknownConsumerGroupError,
)
from birthmark.iothub.service.exclusive_readers import ExclusiveReaderError, ExclusiveReaders, PartitionOfGroup
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
AT = PartitionOfGroup("main", "$default", 0)


@contextlib.asynccontextmanager
async def a_hub(database_url: str) -> AsyncIterator[tuple[IotHub, Hub, Database]]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        iothub = IotHub.of(database, clock, SeededEntropy())
        yield iothub, await iothub.hubs.create("main", "hub.example", actor="test"), database
    finally:
        await database.close()


async def names(groups: ConsumerGroups, hub: Hub) -> list[str]:
    return [group.name for group in await groups.all(hub)]


async def test_a_group_is_made_once_in_any_letter_case_and_deleted(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, hub, _):
        groups = iothub.consumer_groups
        made = await groups.create(hub, "Analytics", actor="test")
        assert await groups.create(hub, "analytics", actor="test") == made
        assert (await groups.get(hub, "ANALYTICS")).name == "Analytics"
        assert await names(groups, hub) == ["$Default", "Analytics"]
        await groups.delete(hub, "analytics", actor="test")
        assert await names(groups, hub) == ["$Default"]
        with pytest.raises(UnknownConsumerGroupError):
            await groups.delete(hub, "analytics", actor="test")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a-", "x" * 51, "$other", "a/b", "ä"])
async def test_other_names_are_rejected(database_url: str, name: str) -> None:
    async with a_hub(database_url) as (iothub, hub, _):
        with pytest.raises(ConsumerGroupNameError):
            await iothub.consumer_groups.create(hub, name, actor="test")


async def test_the_default_group_stays(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, hub, _):
        with pytest.raises(DefaultGroupError):
            await iothub.consumer_groups.delete(hub, "$default", actor="test")
        assert (await iothub.consumer_groups.create(hub, "$DEFAULT", actor="test")).name == "$Default"


async def test_two_workers_make_no_more_groups_than_a_hub_may_have(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, hub, database):
        workers = [iothub.consumer_groups, ConsumerGroups(database, FakeClock())]
        wanted = [workers[n % 2].create(hub, f"g{n}", actor="test") for n in range(MAX_GROUPS + 10)]
        done = await asyncio.gather(*wanted, return_exceptions=True)
        refused = [one for one in done if isinstance(one, BaseException)]
        assert all(isinstance(one, TooManyConsumerGroupsError | ChangedMeanwhileError) for one in refused)
        assert len(await names(ConsumerGroups(database, FakeClock()), hub)) <= MAX_GROUPS
        for number in range(MAX_GROUPS):
            with contextlib.suppress(TooManyConsumerGroupsError):
                await iothub.consumer_groups.create(hub, f"more{number}", actor="test")
        assert len(await names(iothub.consumer_groups, hub)) == MAX_GROUPS


async def test_groups_and_readers_go_with_their_hub(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, hub, _):
        await iothub.consumer_groups.create(hub, "analytics", actor="test")
        await iothub.exclusive_readers.acquire(AT, 1, "a/1", Changes())
        await iothub.hubs.delete("main", actor="test")
        with pytest.raises(UnknownHubError):
            await iothub.consumer_groups.create(hub, "late", actor="test")
        again = await iothub.hubs.create("main", "hub.example", actor="test")
        assert await names(iothub.consumer_groups, again) == ["$Default"]
        await iothub.exclusive_readers.check(AT, None, "")


async def test_a_higher_or_equal_epoch_replaces_and_a_lower_one_is_refused(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, _, _):
        readers = iothub.exclusive_readers
        await readers.acquire(AT, 3, "a/1", Changes())
        for epoch, holder in ((3, "a/2"), (4, "b/1")):
            await readers.acquire(AT, epoch, holder, Changes())
        await readers.check(AT, 4, "b/1")
        for refused in (
            readers.acquire(AT, 3, "a/3", Changes()),
            readers.check(AT, 3, "a/2"),
            readers.check(AT, None, ""),
        ):
            with pytest.raises(ExclusiveReaderError):
                await refused


async def test_only_its_own_right_is_released(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, _, _):
        readers = iothub.exclusive_readers
        await readers.acquire(AT, 1, "a/1", Changes())
        await readers.acquire(AT, 2, "b/1", Changes())
        await readers.release(AT, "a/1")
        await readers.check(AT, 2, "b/1")
        await readers.free_held("a")
        await readers.check(AT, 2, "b/1")
        await readers.free_held("b")
        await readers.check(AT, None, "")


async def test_of_many_who_want_a_partition_at_once_the_highest_has_it(database_url: str) -> None:
    async with a_hub(database_url) as (iothub, _, database):
        workers = [iothub.exclusive_readers, ExclusiveReaders(database)]
        wanted = [workers[n % 2].acquire(AT, n, f"w{n % 2}/{n}", Changes()) for n in range(10)]
        done = await asyncio.gather(*wanted, return_exceptions=True)
        assert {type(one) for one in done} <= {type(None), ExclusiveReaderError, ChangedMeanwhileError}
        (have,) = [n for n in range(10) if await _has(iothub.exclusive_readers, n)]
        assert all(done[n] is not None for n in range(have + 1, 10))


async def _has(readers: ExclusiveReaders, number: int) -> bool:
    try:
        await readers.check(AT, number, f"w{number % 2}/{number}")
    except ExclusiveReaderError:
        return False
    return True
