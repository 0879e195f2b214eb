"""What is counted is what a scan finds, whatever was done in whatever order, on both engines."""

import random
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import bindparam, update

from birthmark.pki.csr import parse_csr
from birthmark.server.counter_verification import KEPT, PERIODS, CounterValues
from birthmark.store import Changes, Database, open_database, statement, to_micros
from birthmark.store.object_counters import HOUR, StoredCounter, figures, week_of
from support.fakes import NOON, FakeClock
from support.kills.interleaved import answered, opened
from support.kills.interleaved_operations import OPERATIONS, fill
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.pki_builders import a_csr

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

_SPOIL = statement(update(figures).where(figures.c.name == bindparam("key_name")).values(value=figures.c.value + 1))


@pytest.mark.parametrize("seed", range(4))
async def test_every_figure_is_what_a_scan_finds(database_url: str, tmp_path: Path, seed: int) -> None:
    order = random.Random(seed).sample(sorted(OPERATIONS), len(OPERATIONS))
    clock = FakeClock()
    async with opened(tmp_path, clock, database_url) as (rooms, database):
        await fill(rooms)
        proof = CounterValues(database, clock)
        for name in order:
            await answered(rooms, OPERATIONS[name])
            clock.move(timedelta(seconds=700))
            assert await proof.prove() == [], name


async def test_a_figure_that_is_wrong_is_named_with_what_is_found(database_url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock, database_url) as (rooms, database):
        await fill(rooms)
        await rooms.settled()
        await database.commit(Changes().run(_SPOIL, key_name="devices"))
        wrong = await CounterValues(database, clock).prove()
        assert [(one.counted.name, one.counted.place, one.counted.value - one.found) for one in wrong] == [
            ("devices", "hub", 1)
        ]


async def a_database(url: str, worker: str = "main") -> Database:
    return await open_database(url, FakeClock(), worker=worker)


async def test_what_is_not_kept_is_not_counted(database_url: str) -> None:
    database = await a_database(database_url)
    try:
        await database.commit(Changes().count("things", by=2))
        refused = Changes().count("things").run(_SPOIL, expect=1, key_name="nothing")
        with pytest.raises(Exception, match="changed by another request"):
            await database.commit(refused)
        assert [one.value for one in await CounterValues(database, FakeClock()).read("things")] == [2]
    finally:
        await database.close()


async def test_the_counts_of_workers_are_one_figure(postgres_url: str) -> None:
    one, other = await a_database(postgres_url, "one"), await a_database(postgres_url, "other")
    try:
        await one.commit(Changes().count("things", by=3))
        await other.commit(Changes().count("things", by=-1))
        assert await CounterValues(one, FakeClock()).read("things") == [StoredCounter("things", "", "", 0, 2)]
    finally:
        await one.close()
        await other.close()


async def test_an_hour_is_that_of_the_commit(database_url: str) -> None:
    database = await a_database(database_url)
    try:
        await database.commit(Changes().count("renewals", "device", since=None))
        (made,) = await CounterValues(database, FakeClock()).read("renewals")
        assert made.since == to_micros(NOON) // HOUR * HOUR
    finally:
        await database.close()


async def test_a_renewal_is_counted_and_named_and_a_first_certificate_is_not(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        held = await ca.find((await ca.issue(parse_csr(a_csr("pump-1")), OPERATOR))[0].thumbprint)
        await ca.issue(parse_csr(a_csr("pump-1")), OPERATOR, issued_certificate=held)
        found = CounterValues(ca.database, ca.clock)
        assert [(one.place, one.value) for one in await found.read("renewals")] == [("device", 1)]
        assert [one.value for one in await found.read("certificates") if one.place == "device"] == [2]
        assert await found.prove() == []


def test_weeks_begin_with_monday() -> None:
    assert [week_of(to_micros(NOON.replace(year=2026, month=11, day=day))) for day in (23, 29)] == [
        to_micros(NOON.replace(year=2026, month=11, day=23, hour=0))
    ] * 2


def test_all_that_is_kept_by_the_hour_is_kept_for_more_than_a_year() -> None:
    assert KEPT.days > 366
    assert set(PERIODS) == {
        *("devices", "things", "certificates", "registrations", "renewals", "refusals", "failed renewals")
    }
