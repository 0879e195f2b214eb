"""The ledger under a flood, on both databases: bounded in rows, in bytes and by address."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from birthmark.errors import InvalidRequestError
from birthmark.rate_limits import RateLimits
from birthmark.refusals import Ledger, ledger, refusals_about
from birthmark.refusals.store import refusals, subjects
from birthmark.store import Changes, Database, open_database, statement
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration

ROWS = statement(select(func.count().label("n")).select_from(refusals))
NAMES = statement(select(func.count().label("n")).select_from(subjects))


@contextlib.asynccontextmanager
async def a_ledger(url: str) -> AsyncIterator[tuple[Ledger, Database, FakeClock]]:
    clock = FakeClock()
    database = await open_database(url, clock)
    try:
        yield Ledger(database, clock, SeededEntropy()), database, clock
    finally:
        await database.close()


async def record(book: Ledger, clock: FakeClock, device: str, address: str) -> None:
    book.record(a_refusal(device_id=device), address=address)
    await book.wait_until_written()
    clock.move(timedelta(seconds=1))


def a_refusal(**facts: object) -> InvalidRequestError:
    error = InvalidRequestError()
    error.add_facts(**facts)
    return error


async def test_only_the_latest_rows_are_kept(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS", 10)
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 20)

    async with a_ledger(database_url) as (book, database, clock):
        for number in range(41):
            book.record(a_refusal(device_id=f"device-{number}"), address=f"192.0.2.{number}")
            await book.wait_until_written()
            clock.move(timedelta(seconds=1))
        rows, names = await database.one(ROWS), await database.one(NAMES)
        assert rows is not None
        assert names is not None
        assert rows["n"] == 10
        assert names["n"] == 2 * rows["n"]
        assert await refusals_about(database, "device-40")
        assert not await refusals_about(database, "device-5")


async def test_old_rows_leave_with_their_names(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 2)

    async with a_ledger(database_url) as (book, database, clock):
        for day in (0, 0, 8):
            clock.move(timedelta(days=day))
            book.record(a_refusal(device_id=f"device-{day}"), address="192.0.2.1")
            await book.wait_until_written()
        names = await database.one(NAMES)
        assert names is not None
        assert names["n"] == 2
        assert len(await refusals_about(database, None)) == 1


async def test_no_row_is_old_by_a_clock_that_is_ahead_for_a_moment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 2)

    async with a_ledger(database_url) as (book, database, clock):
        for day in (0, 0, 8):
            clock.jump(timedelta(days=day))
            book.record(a_refusal(device_id=f"device-{day}"), address="192.0.2.1")
            await book.wait_until_written()
        assert len(await refusals_about(database, None)) == 3


async def test_one_address_cannot_push_the_others_out(database_url: str) -> None:
    async with a_ledger(database_url) as (book, database, clock):
        book._limits = RateLimits(burst=3, per_s=1)
        for number in range(9):
            book.record(a_refusal(device_id=f"loud-{number}"), address="192.0.2.1")
        book.record(a_refusal(device_id="quiet"), address="192.0.2.2")
        await book.wait_until_written()
        assert len(await refusals_about(database, None)) == 4
        assert await refusals_about(database, "quiet")
        clock.move(timedelta(seconds=2))
        book.record(a_refusal(device_id="later"), address="192.0.2.1")
        await book.wait_until_written()
        assert await refusals_about(database, "later")


async def test_the_oldest_rows_of_who_has_most_make_room(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS", 12)
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 61)

    async with a_ledger(database_url) as (book, database, clock):
        await record(book, clock, "quiet", "192.0.2.1")
        for number in range(30):
            await record(book, clock, f"loud-{number}", "192.0.2.2")
            await record(book, clock, f"louder-{number}", f"2001:db8::{number + 1:x}")
        await record(book, clock, "last", "192.0.2.3")
        kept = [row.facts["device_id"] for row in await refusals_about(database, None)]
        names = await database.one(NAMES)
        assert names is not None
        assert kept == ["last", *(f"{who}-{n}" for n in range(29, 24, -1) for who in ("louder", "loud")), "quiet"]
        assert names["n"] == 2 * len(kept)


async def test_no_network_has_more_than_its_rows(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS_OF_ONE", 3)
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 10)

    async with a_ledger(database_url) as (book, database, clock):
        for number in range(11):
            await record(book, clock, f"device-{number}", f"2001:db8::{number + 1:x}")
        found = await refusals_about(database, None)
        assert [row.address for row in found] == ["2001:db8::b", "2001:db8::a", "2001:db8::9"]


async def test_rows_leave_in_slices_so_that_no_commit_waits_for_many(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS", 10)
    monkeypatch.setattr(ledger, "_PRUNE_EVERY", 1000)
    monkeypatch.setattr(ledger, "_PAGE", 7)
    monkeypatch.setattr(ledger, "_SLICE", 4)
    async with a_ledger(database_url) as (book, database, clock):
        for number in range(60):
            await record(book, clock, f"device-{number}", f"192.0.2.{number}")
        sizes: list[int] = []
        commit = database.commit

        async def noted(changes: Changes) -> None:
            sizes.append(len(changes.writes))
            await commit(changes)

        monkeypatch.setattr(database, "commit", noted)
        monkeypatch.setattr(ledger, "_PRUNE_EVERY", 60)
        await record(book, clock, "last", "192.0.2.200")
        assert max(sizes) <= 2 * 4
        assert len(await refusals_about(database, None, 100)) == 10
        assert await refusals_about(database, "last")


async def test_the_addresses_of_one_ipv6_network_have_one_share_of_rows(database_url: str) -> None:
    async with a_ledger(database_url) as (book, database, clock):
        book._limits = RateLimits(burst=3, per_s=1)
        for number in range(9):
            await record(book, clock, f"loud-{number}", f"2001:db8::{number}")
            clock.move(-timedelta(seconds=1))
        assert len(await refusals_about(database, None)) == 3


async def test_what_a_client_wrote_is_cut_and_never_unkeepable(database_url: str) -> None:
    async with a_ledger(database_url) as (book, database, _clock):
        reference = book.record(a_refusal(device_id="a\0b\ud800" + "x" * 100_000, other="\0"), address="192.0.2.1")
        await book.wait_until_written()
        (found,) = await refusals_about(database, reference)
        assert found.facts["device_id"].startswith("a\\u0000b\\ud800xxx")
        assert len(str(found.as_json())) < 10_000


async def test_many_at_once_are_few_commits(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_ledger(database_url) as (book, database, _):
        sizes: list[int] = []
        commit = database.commit

        async def noted(changes: Changes) -> None:
            sizes.append(len(changes.writes))
            await commit(changes)

        monkeypatch.setattr(database, "commit", noted)
        for number in range(160):
            book.record(a_refusal(device_id=f"device-{number}"), address="192.0.2.1")
        await book.wait_until_written()
        assert len(await refusals_about(database, None, limit=200)) == 160
        assert len(sizes) <= 160 // ledger._AT_ONCE + 1
        assert max(sizes) <= 3 * ledger._AT_ONCE


async def test_more_addresses_than_may_wait_cost_no_later_refusal(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_PENDING", 4)
    monkeypatch.setattr(ledger, "_AT_ONCE", 1)
    async with a_ledger(database_url) as (book, database, _):
        for number in range(6):
            book.record(a_refusal(device_id=f"device-{number}"), address=f"192.0.2.{number}")
        await asyncio.wait_for(book.wait_until_written(), 5)
        book.record(a_refusal(device_id="later"), address="192.0.2.9")
        await book.wait_until_written()
        assert book._waiting.count == 0
        assert len(await refusals_about(database, None)) == 4 + 1
        assert await refusals_about(database, "later")


async def test_a_row_that_the_database_does_not_take_costs_no_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_ledger(database_url) as (book, database, _):
        commit = database.commit

        async def picky(changes: Changes) -> None:
            if any(write.params.get("subject") == "odd" for write in changes.writes):
                raise InvalidRequestError
            await commit(changes)

        monkeypatch.setattr(database, "commit", picky)
        for name in ("one", "odd", "other"):
            book.record(a_refusal(device_id=name), address="192.0.2.1")
        await book.wait_until_written()
        assert {row.facts["device_id"] for row in await refusals_about(database, None)} == {"one", "other"}


async def test_who_has_no_address_has_its_own_share(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with a_ledger(database_url) as (book, database, _):
        book._limits = RateLimits(burst=3, per_s=0)
        for _ in range(10):
            book.record(a_refusal(device_id="many"), whose="its key")
        book.record(a_refusal(device_id="single"), whose="another key")
        await book.wait_until_written()
        assert len(await refusals_about(database, "many")) == 3
        assert len(await refusals_about(database, "single")) == 1
    assert {vars(line)["whose"] for line in caplog.records if line.msg == "refused"} == {"its key", "another key"}
