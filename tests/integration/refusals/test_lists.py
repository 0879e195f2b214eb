"""Refusals of a code, pages of them, and for which reasons how often, on both engines."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from birthmark.errors import BirthmarkError, ForbiddenError, InvalidRequestError, NotFoundError
from birthmark.refusals import Ledger, Refusal, refusals_about, store
from birthmark.refusals.reason_counts import _COUNTS, reasons
from birthmark.store import Changes, Database, Statement, open_database, statement
from birthmark.store.pagination import PageInvalidError
from birthmark.store.table_statements import remove
from support.fakes import FakeClock, SeededEntropy

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


class FirstError(InvalidRequestError):
    """One."""

    code = "test.first"


class SecondError(ForbiddenError):
    """Another."""

    code = "test.second"


class OldError(NotFoundError):
    """One of before."""

    code = "test.old"


@contextlib.asynccontextmanager
async def a_ledger(url: str) -> AsyncIterator[tuple[Ledger, Database, FakeClock]]:
    clock = FakeClock()
    database = await open_database(url, clock)
    try:
        yield Ledger(database, clock, SeededEntropy()), database, clock
    finally:
        await database.close()


async def record(book: Ledger, *errors: BirthmarkError) -> None:
    for number, error in enumerate(errors):
        book.record(error, address="192.0.2.1", device_id=f"Pump-{number % 2}")
    await book.wait_until_written()


async def pages(database: Database, subject: str | None, code: str | None) -> list[Refusal]:
    told: list[Refusal] = []
    before = None
    while page := await refusals_about(database, subject, 3, code=code, before=before):
        told += page
        before = page[-1].id
    return told


async def test_pages_follow_each_other_also_within_a_moment(database_url: str) -> None:
    async with a_ledger(database_url) as (book, database, clock):
        for _ in range(4):
            await record(book, FirstError(), SecondError(), FirstError())
            clock.move(timedelta(minutes=1))
        every = await refusals_about(database, None, 100)
        assert len(every) == 12
        for code in (None, "test.first", "test.second"):
            for subject in (None, "PUMP-0", "pump-1"):
                fitting = [
                    one
                    for one in every
                    if code in {None, one.code} and (not subject or one.facts["device_id"].lower() == subject.lower())
                ]
                assert await pages(database, subject, code) == fitting
                assert len(fitting) == len(await refusals_about(database, subject, 100, code=code))
        with pytest.raises(PageInvalidError):
            await refusals_about(database, None, before="unknown")


async def test_reasons_are_counted_and_those_that_did_not_come_before_are_new(database_url: str) -> None:
    async with a_ledger(database_url) as (book, database, clock):
        await record(book, SecondError(), OldError())
        clock.move(timedelta(days=1))
        await record(book, FirstError(), FirstError(), SecondError(), SecondError(), SecondError())
        (most, other) = await reasons(database, clock.now(), timedelta(days=1) - timedelta(hours=1))
        assert (most.code, most.count, most.before, most.is_new) == ("test.second", 3, 1, False)
        assert (other.code, other.count, other.before, other.is_new) == ("test.first", 2, 0, True)
        assert most.latest is not None
        assert most.latest.as_json() == most.as_json()["latest"]
        assert (most.latest.cause, most.latest.facts["device_id"]) == (SecondError.cause, "Pump-0")
        assert [one.count for one in await reasons(database, clock.now(), timedelta(days=2))] == [4, 2, 1]


async def test_a_reason_whose_rows_are_gone_is_counted_still(database_url: str) -> None:
    async with a_ledger(database_url) as (book, database, clock):
        assert await reasons(database, clock.now(), timedelta(days=1)) == []
        await record(book, FirstError())
        await database.commit(Changes().run(remove(store.refusals, "code"), code="test.first"))
        (one,) = await reasons(database, clock.now(), timedelta(days=1))
        assert (one.count, one.latest) == (1, None)


@pytest.mark.parametrize("asked", [store.LATEST, store.OF_CODE, store.ABOUT, store.ABOUT_OF_CODE, _COUNTS])
async def test_they_are_found_by_an_index(database_url: str, asked: Statement) -> None:
    async with a_ledger(database_url) as (_, database, _):
        if "sqlite" not in type(database).__module__:
            pytest.skip("PostgreSQL reads an empty table whole")
        compiled = asked.compiled("sqlite")
        sql = compiled.sql
        for _name in compiled.order:
            sql = sql.replace("?", "1", 1)
        plan = [str(row["detail"]) for row in await database.all(statement(text("EXPLAIN QUERY PLAN " + sql)))]
        assert not [line for line in plan if line.startswith(("SCAN refus", "SCAN fig")) and "USING" not in line], plan
        assert not [line for line in plan if "FOR ORDER BY" in line and "LAST" not in line], plan
