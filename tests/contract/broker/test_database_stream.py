"""A stream on both databases: order, positions, groups, trimming, the live tail, two writers, a database that fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from birthmark.broker import chunked_deletes, store
from birthmark.broker import database_stream as stream
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.ports import MessageStream, StreamPage
from birthmark.broker.rules.stream_partitions_and_positions import BEGINNING, PARTITIONS, key_of, partition_of, through
from birthmark.errors import UnavailableError
from birthmark.iothub.model import TelemetryMessage
from birthmark.store import Changes, Database, open_database, to_micros
from birthmark.store.sqlite import DatabaseUnavailableError
from birthmark.supervised_tasks import FAILURES
from support.fakes import FakeClock
from support.store.between import lose_the_next_answer

pytestmark = pytest.mark.integration
FOUR = ("d1", "d2", "d0", "d6")
"""Devices of four partitions."""


@dataclass
class World:
    database: Database
    clock: FakeClock
    stream: MessageStream[TelemetryMessage]
    outcomes: list[BaseException | None] = field(default_factory=list)

    async def send(self, *messages: tuple[str, str]) -> None:
        """Append messages, each by itself and all in one commit."""
        before = len(self.outcomes)
        now = to_micros(self.clock.now())
        for device, body in messages:
            sent = [TelemetryMessage(device, now, body.encode(), {}, {})]
            self.stream.append(key_of(device), sent, len(body), self.outcomes.append)
        async with asyncio.timeout(10):
            while len(self.outcomes) < before + len(messages):
                await asyncio.sleep(0.001)
        self.clock.move(timedelta(seconds=1))

    async def goes_on(self) -> None:
        """Return when everything was answered and one more message is written."""
        async with asyncio.timeout(10):
            await self.stream.settled()
        await self.send(("d1", "later"))
        assert self.outcomes[-1] is None
        assert bodies(await self.stream.latest(1)) == ["later"]

    def again(self) -> None:
        """Begin anew, as another process does."""
        self.stream = a_stream(self.database, self.clock)


def a_stream(database: Database, clock: FakeClock) -> SqlStream[TelemetryMessage]:
    return SqlStream("hub/main", TelemetryMessage, database, clock)


@contextlib.asynccontextmanager
async def a_world(url: str) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(url, clock)
    try:
        yield World(database, clock, a_stream(database, clock))
    finally:
        await database.close()


def bodies(messages: Iterable[TelemetryMessage]) -> list[str]:
    return [message.body.decode() for message in messages]


async def read_all(
    stream: MessageStream[TelemetryMessage], after: tuple[int, ...], limit: int, device: str | None = None
) -> list[StreamPage[TelemetryMessage]]:
    pages = [await stream.read(after, limit, device)]
    while not pages[-1].is_end:
        pages.append(await stream.read(pages[-1].next, limit, device))
    return pages


def test_the_devices_of_these_tests_are_of_all_partitions() -> None:
    assert {partition_of(key_of(device)) for device in FOUR} == set(range(PARTITIONS))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_everything_is_read_once_whatever_the_page(database_url: str, limit: int) -> None:
    async with a_world(database_url) as world:
        for number in range(6):
            await world.send(*((device, f"{device}.{number}.{part}") for part in "ab" for device in FOUR))
        pages = await read_all(world.stream, BEGINNING, limit)
        found = [text for page in pages for text in bodies(page.items)]
        assert len(found) == len(set(found)) == 48
        for device in FOUR:
            own = [text for text in found if text.startswith(device)]
            assert own == [f"{device}.{n}.{part}" for n in range(6) for part in "ab"]
            one = await read_all(world.stream, BEGINNING, limit, device)
            assert [text for page in one for text in bodies(page.items)] == own
        assert all(len(page.items) <= limit for page in pages)
        assert pages[-1].next == through(6) == await world.stream.end()
        assert (await world.stream.read(pages[-1].next, limit)).items == []


async def test_numbers_go_on_after_a_restart_and_after_everything_was_trimmed(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send(("d0", "1"))
        await world.send(("d0", "2"))
        end = await world.stream.end()
        world.clock.move(timedelta(days=3))
        await world.stream.trim(to_micros(world.clock.now()), 10**9)
        world.again()
        assert await world.stream.end() == end
        await world.send(("d0", "3"))
        page = await world.stream.read(end, 10)
        assert (bodies(page.items), page.is_gap) == (["3"], False)
        assert bodies((await world.stream.read(BEGINNING, 10)).items) == ["2", "3"]


async def numbered(world: World, partition: int, after: int = 0, limit: int = 3) -> list[tuple[int, str]]:
    """Return the sequence numbers and bodies of a partition after a position, page by page."""
    found: list[tuple[int, str]] = []
    while True:
        page = await world.stream.read_partition(partition, after, limit, most_bytes=1 << 20)
        found += [(number, one.body.decode()) for _, number, one in page.items]
        after = page.next
        if page.is_end:
            return found


async def test_the_messages_of_a_partition_are_numbered_without_gaps(database_url: str) -> None:
    async with a_world(database_url) as world:
        for round_ in range(4):
            await world.send(*((device, f"{device}-{round_}-{one}") for device in FOUR for one in range(2)))
            world.again()
        for device in FOUR:
            found = await numbered(world, partition_of(key_of(device)))
            assert found == [(2 * round_ + one, f"{device}-{round_}-{one}") for round_ in range(4) for one in range(2)]


async def test_reading_starts_at_a_sequence_number(database_url: str) -> None:
    async with a_world(database_url) as world:
        partition = partition_of(key_of("d1"))
        for number in range(7):
            await world.send(("d1", f"m{number}"), ("d0", "another partition"))
        for number in range(7):
            after = await world.stream.find_number(partition, number)
            assert (await numbered(world, partition, after))[0] == (number, f"m{number}")
        assert await numbered(world, partition, await world.stream.find_number(partition, 7)) == []


async def test_numbers_go_on_when_older_messages_were_trimmed(database_url: str) -> None:
    async with a_world(database_url) as world:
        partition = partition_of(key_of("d1"))
        for number in range(5):
            await world.send(("d1", f"m{number}"))
        await world.stream.trim(to_micros(world.clock.now() - timedelta(seconds=2)), 1 << 30)
        world.again()
        await world.send(("d1", "m5"))
        found = await numbered(world, partition)
        assert found[-1] == (5, "m5")
        state = await world.stream.partition_state(partition)
        assert (state.first_number, state.next_number) == (found[0][0], 6)
        assert state.last_position == (await world.stream.read_partition(partition, 0, 99, most_bytes=99)).items[-1][0]
        assert await numbered(world, partition, await world.stream.find_number(partition, 0)) == found


async def test_a_partition_without_messages_is_empty(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send(("d1", "m"))
        state = await world.stream.partition_state(partition_of(key_of("d0")))
        assert (state.is_empty, state.first_number, state.last_position, state.last_micros) == (True, 0, 0, 0)


async def test_who_was_overtaken_by_trimming_is_told_and_goes_on(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(5):
            await world.send(("d0", str(number)))
        first = await world.stream.read(BEGINNING, 1)
        assert not first.is_gap
        await world.stream.trim(to_micros(world.clock.now() - timedelta(seconds=2)), 10**9)
        later = await world.stream.read(first.next, 10)
        assert (bodies(later.items), later.is_gap) == (["3", "4"], True)
        assert not (await world.stream.read(later.next, 10)).is_gap


async def test_trimming_keeps_so_many_bytes_of_the_newest(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(8):
            await world.send(("d0", f"{number}" + "x" * 1000))
        kept = await world.stream.trim(0, 3300)
        assert [text[0] for text in bodies((await world.stream.read(BEGINNING, 10)).items)] == ["5", "6", "7"]
        assert 3000 < kept <= 3300
        await world.stream.trim(0, 1)
        assert [text[0] for text in bodies((await world.stream.read(BEGINNING, 10)).items)] == ["7"]


@pytest.mark.parametrize("how", ["by age", "by size", "thinned"])
async def test_no_commit_of_trimming_takes_more_than_a_portion_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Two gigabytes of one device, a day old, kept everybody's messages waiting for five seconds at a time."""
    async with a_world(database_url) as world:
        for number in range(40):
            await world.send(("loud", f"{number}" + "x" * 10_000), ("quiet", f"{number}" + "y" * 5000))
        monkeypatch.setattr(chunked_deletes, "PORTION_BYTES", 64 * 1024)
        commit, counts = world.database.commit, list[int]()

        async def counting(changes: Changes) -> None:
            before = await total(world)
            await commit(changes)
            counts.append(before - await total(world))

        monkeypatch.setattr(world.database, "commit", counting)
        if how == "thinned":
            await world.stream.trim(0, 400_000)
        elif how == "by size":
            world.again()
            await world.stream.trim(0, 1)
        else:
            await world.stream.trim(to_micros(world.clock.now()), 10**9)
        assert max(counts) <= 64 * 1024
        assert sum(counts) > 150_000


async def total(world: World) -> int:
    rows = await world.database.all(store.OLDEST, stream="hub/main", first=0, limit=10_000)
    return sum(row["size"] for row in rows)


async def test_what_is_too_much_is_first_taken_from_who_sent_most_of_it(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send(("quiet", "an alarm"))
        for number in range(40):
            await world.send(
                ("loud", f"{number}" + "x" * 1000), *([("other", f"o{number}")] if number % 8 == 0 else [])
            )
        end = await world.stream.end()
        kept = await world.stream.trim(0, 12_000)
        assert 5_000 < kept <= 12_000
        found = (await world.stream.read(BEGINNING, 100)).items
        assert [one for one in bodies(found) if "x" not in one] == ["an alarm", "o0", "o8", "o16", "o24", "o32"]
        assert bodies(found)[-1][:2] == "39"
        assert await world.stream.end() == end
        assert bodies(await world.stream.latest(1, "quiet")) == ["an alarm"]
        assert bodies(await world.stream.latest(9, "other")) == ["o0", "o8", "o16", "o24", "o32"]
        assert await world.stream.trim(0, 12_000) == kept


async def test_positions_mean_the_same_after_the_loud_were_taken_out(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send(("loud", "a" * 3000), ("other", "first"), ("loud", "b" * 3000), ("other", "second"))
        read = await world.stream.read(BEGINNING, 2, "other")
        for number in range(8):
            await world.send(("loud", f"{number}" + "x" * 1000))
        await world.stream.trim(0, 9000)
        page = await world.stream.read(BEGINNING, 100, "other")
        assert bodies(page.items) == bodies(read.items) == ["first", "second"]
        later = await world.stream.read((1,) * PARTITIONS, 100)
        assert later.is_gap  # the loud device's are missed


async def test_what_the_quiet_sent_goes_too_when_it_is_too_much_by_itself(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(60):
            await world.send((f"quiet{number}", f"{number}" + "y" * 300), ("loud", f"{number}" + "x" * 1000))
        kept = await world.stream.trim(0, 9000)
        assert kept <= 9000
        found = bodies((await world.stream.read(BEGINNING, 500)).items)
        assert len([one for one in found if "y" in one]) >= 10
        await world.stream.trim(0, 1)
        assert len((await world.stream.read(BEGINNING, 500)).items) == 2  # the newest commit


async def test_a_time_is_found(database_url: str) -> None:
    async with a_world(database_url) as world:
        began = world.clock.now()
        for number in range(20):
            await world.send((f"d{number % 4}", str(number)))
        await world.stream.trim(to_micros(began + timedelta(seconds=3)), 10**9)
        for after_s, wanted in ((-9, 3), (3, 3), (7, 7), (7.5, 8), (19, 19), (19.5, 20), (99, 20)):
            where = await world.stream.find(to_micros(began + timedelta(seconds=after_s)))
            page = await world.stream.read(where, 100)
            assert bodies(page.items) == [str(number) for number in range(wanted, 20)]
            assert not page.is_gap


async def test_each_group_has_its_own_place(database_url: str) -> None:
    async with a_world(database_url) as world:
        assert await world.stream.position("one") is None
        for number in range(4):
            await world.send((FOUR[number], str(number)))
        page = await world.stream.read(BEGINNING, 2)
        await world.stream.set_position("one", page.next)
        await world.stream.set_position("other", BEGINNING)
        world.again()
        place = await world.stream.position("one")
        assert place == page.next
        assert bodies((await world.stream.read(place, 9)).items) == ["2", "3"]
        await world.stream.set_position("one", await world.stream.end())
        assert await world.stream.position("one") == await world.stream.end()
        assert await world.stream.position("other") == BEGINNING


async def test_a_reader_that_waits_is_woken_by_a_commit(database_url: str) -> None:
    async with a_world(database_url) as world:
        end = await world.stream.end()
        assert not await world.stream.tail(end, 0.01)
        waiting = [asyncio.create_task(world.stream.tail(end, 30)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await world.send(("d0", "1"))
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiting) == [True] * 3
        assert await world.stream.tail(end, 0)
        assert not await world.stream.tail(await world.stream.end(), 0.01)


async def test_the_latest_of_one_device_are_found_among_all(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "NAMED_EVERY", 4)
    async with a_world(database_url) as world:
        await world.send(("quiet", "first"))
        for number in range(60):
            await world.send(*((device, f"{device}.{number}") for device in FOUR))
        await world.send(("quiet", "last"))
        for number in range(60, 70):
            await world.send(*((device, f"{device}.{number}") for device in FOUR))
        assert bodies(await world.stream.latest(5, "quiet")) == ["first", "last"]
        assert bodies(await world.stream.latest(1, "quiet")) == ["last"]
        assert bodies(await world.stream.latest(3, "d1")) == ["d1.67", "d1.68", "d1.69"]
        assert sorted(bodies(await world.stream.latest(4))) == [f"{d}.69" for d in sorted(FOUR)]
        assert len(await world.stream.latest(10_000)) == 282
        assert await world.stream.latest(5, "nobody") == []


async def test_a_page_ends_where_its_messages_are_large(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_PAGE_BYTES", 5000)
    async with a_world(database_url) as world:
        for number in range(20):
            await world.send(("d1", f"{number:04}" * 250))
        page = await world.stream.read(BEGINNING, 100, most_bytes=5000)
        following = await world.stream.read(page.next, 100, most_bytes=5000)
        assert 5 <= len(page.items) <= 7
        assert bodies([*page.items, *following.items])[-1] == f"{len(page.items) + len(following.items) - 1:04}" * 250
        for device in (None, "d1"):
            newest = await world.stream.latest(16, device)
            assert bodies(newest)[-1] == "0019" * 250
            assert len(newest) <= 16


async def test_a_quiet_device_costs_few_rows(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "NAMED_EVERY", 16)
    async with a_world(database_url) as world:
        place = partition_of(key_of("quiet"))
        loud = next(f"n{n}" for n in range(99) if partition_of(key_of(f"n{n}")) == place)
        await world.send((loud, "0"))
        for number in range(16, 400):
            await world.send(("quiet" if number == 200 else loud, str(number)))
        bodies_read = 0
        all_rows = world.database.all

        async def counting(statement: object, /, **params: object) -> object:
            nonlocal bodies_read
            rows = await all_rows(statement, **params)  # type: ignore[arg-type] # handed on as it came
            bodies_read += len(rows) if statement is store.SEGMENTS_OF_ONE_BACK else 0
            return rows

        monkeypatch.setattr(world.database, "all", counting)
        assert bodies(await world.stream.latest(10, "quiet")) == ["200"]
        assert (
            bodies_read < 16 * 3 + 2 * 16
        )  # what no row names yet, the block it is in, the first: of an unknown start


async def test_two_writers_of_one_stream_lose_nothing_and_use_no_number_twice(database_url: str) -> None:
    async with a_world(database_url) as world:
        done: list[BaseException | None] = []
        others = [world.stream, a_stream(world.database, world.clock)]
        for number in range(25):
            for place, writer in enumerate(others):
                writer.append(number, [TelemetryMessage(f"w{place}", 0, str(number).encode(), {}, {})], 1, done.append)
            await asyncio.sleep(0.002)
        async with asyncio.timeout(10):
            while len(done) < 50:
                await asyncio.sleep(0.001)
        assert done == [None] * 50
        found = [message for page in await read_all(world.stream, BEGINNING, 7) for message in page.items]
        for place in range(2):
            assert sorted(int(m.body) for m in found if m.device_id == f"w{place}") == list(range(25))


async def test_two_writers_number_the_messages_of_a_partition_without_gaps(database_url: str) -> None:
    async with a_world(database_url) as world, a_world(database_url) as other:
        for number in range(6):
            await (world, other)[number % 2].send(("d1", f"m{number}"))
        found = await numbered(world, partition_of(key_of("d1")))
        assert found == [(number, f"m{number}") for number in range(6)]


async def test_what_was_not_kept_is_told_and_the_next_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        await world.send(("d0", "1"))
        submit, failing = world.database.submit, [True]

        def refusing(changes: Changes) -> asyncio.Future[None]:
            if not failing:
                return submit(changes)
            failing.clear()
            future = asyncio.get_running_loop().create_future()
            future.set_exception(UnavailableError())
            return future

        monkeypatch.setattr(world.database, "submit", refusing)
        await world.send(("d0", "lost"))
        assert isinstance(world.outcomes[-1], UnavailableError)
        await world.send(("d0", "2"))
        assert world.outcomes[-1] is None
        assert bodies((await world.stream.read(BEGINNING, 9)).items) == ["1", "2"]


@pytest.mark.parametrize("device", [None, "d1"])
async def test_the_latest_are_in_the_order_of_their_commits_whatever_the_clocks_say(
    database_url: str, device: str | None
) -> None:
    async with a_world(database_url) as world:
        for number in range(4):
            await world.send(("d1", f"{number}"))
            world.clock.move(timedelta(seconds=-60))  # as where a device goes to another machine
        assert bodies(await world.stream.latest(9, device)) == ["0", "1", "2", "3"]
        assert bodies(await world.stream.latest(2, device)) == ["2", "3"]


async def test_what_waits_behind_what_was_not_kept_is_refused_with_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        await world.send(("d0", "1"))
        monkeypatch.setattr(stream, "MAX_BURST", 2)
        with monkeypatch.context() as patched:
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(UnavailableError())
            submit, futures = world.database.submit, [refused]
            patched.setattr(world.database, "submit", lambda changes: futures.pop() if futures else submit(changes))
            await world.send(("d0", "lost"), ("d1", "lost"), ("d0", "behind it"), ("d2", "of another"))
        assert [type(one) for one in world.outcomes] == [type(None), *[UnavailableError] * 3, type(None)]
        assert bodies((await world.stream.read(BEGINNING, 9)).items) == ["1", "of another"]
        await world.goes_on()


async def test_large_bursts_are_cut_into_commits_of_bounded_size(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_COMMIT_BYTES", 1000)
    async with a_world(database_url) as world:
        for number in range(6):
            message = TelemetryMessage("d0", number, bytes([number]) * 600, {}, {})
            world.stream.append(0, [message], 600, world.outcomes.append)
        await world.stream.settled()
        assert await world.stream.end() == through(3)
        assert [message.body[0] for message in await world.stream.latest(10, "d0")] == list(range(6))


async def test_a_stream_that_is_dropped_is_gone_with_its_groups(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.send(("d0", "1"))
        await world.stream.set_position("g", through(1))
        await world.database.commit(store.drop_stream("hub/main"))
        assert (await world.stream.read(BEGINNING, 9)).items == []
        assert await world.stream.position("g") is None


async def test_an_answer_of_the_database_that_is_lost_costs_a_duplicate_at_most(postgres_url: str) -> None:
    async with a_world(postgres_url) as world:
        await world.send(("d1", "before"))
        lose_the_next_answer(world.database)
        await world.send(("d1", "lost"), ("d1", "lost too"))
        await world.send(("d1", "after"))
        assert world.outcomes == [None] * 4
        found = bodies((await world.stream.read(BEGINNING, 100)).items)
        assert list(dict.fromkeys(found)) == ["before", "lost", "lost too", "after"]


UNWRITABLE = TelemetryMessage("d1", 1, b"x", {}, {"a": "\ud800"})


@pytest.mark.parametrize("behind_another_commit", [False, True])
async def test_a_message_that_cannot_be_written_is_refused_and_the_stream_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch, behind_another_commit: bool
) -> None:
    async with a_world(database_url) as world:
        await world.send(("d1", "first"))
        before = FAILURES["the stream"]
        monkeypatch.setattr(stream, "MAX_BURST", 1)
        if behind_another_commit:
            world.stream.append(1, [TelemetryMessage("d1", 1, b"second", {}, {})], 1, world.outcomes.append)
        world.stream.append(1, [UNWRITABLE], 1, world.outcomes.append)
        await world.goes_on()
        assert [type(one) for one in world.outcomes if one is not None] == [UnicodeEncodeError]
        assert len(world.outcomes) == 3 + behind_another_commit
        assert FAILURES["the stream"] == before + 1


async def test_what_one_sends_is_written_beside_the_very_much_of_another_and_each_keeps_its_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        monkeypatch.setattr(stream, "MAX_BURST", 3)
        await world.send(*[("d1", f"much {number}") for number in range(60)], ("d2", "little 0"), ("d2", "little 1"))
        found = bodies((await world.stream.read(BEGINNING, 100)).items)
        assert found.index("little 1") < 8
        assert [one for one in found if "much" in one] == [f"much {number}" for number in range(60)]
        assert found.index("little 0") < found.index("little 1")


async def test_a_mistake_while_the_end_is_looked_for_is_told_and_the_stream_goes_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken() -> None:
        raise ZeroDivisionError

    async with a_world(database_url) as world:
        before = FAILURES["the stream"]
        with monkeypatch.context() as patched:
            patched.setattr(world.stream, "_newest", mistaken)
            await world.send(("d1", "lost"))
        assert [type(one) for one in world.outcomes] == [ZeroDivisionError]
        assert FAILURES["the stream"] == before + 1
        await world.goes_on()


async def test_who_fails_to_hear_that_it_is_written_keeps_nobody_else_from_it(database_url: str) -> None:
    def deaf(_: BaseException | None) -> None:
        raise ZeroDivisionError

    async with a_world(database_url) as world:
        before = FAILURES["the stream"]
        world.stream.append(key_of("d2"), [TelemetryMessage("d2", 1, b"unheard", {}, {})], 1, deaf)
        await world.send(("d1", "heard"))
        assert world.outcomes == [None]
        assert FAILURES["the stream"] == before + 1
        await world.goes_on()


async def test_a_full_disk_takes_nothing_more_and_says_so(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(database_url) as world:
        full = DatabaseUnavailableError(where="the disk", reason="full")
        monkeypatch.setattr(world.database, "find_disk_full_error", lambda: full)
        await world.send(("d1", "lost"))
        monkeypatch.setattr(world.database, "find_disk_full_error", lambda: None)
        await world.goes_on()
        assert world.outcomes == [full, None]
        assert bodies(await world.stream.latest(9)) == ["later"]
