"""The latest rows of every chain, by who did what about whom, a page at a time and by an index, on both engines."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from birthmark.audit import queries as module
from birthmark.audit.queries import ACTIONS, ALL, BY, PEOPLE, AuditQuery, latest
from birthmark.store import Changes, Database, Statement, open_database, statement
from birthmark.store.pagination import PageInvalidError
from support.fakes import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
ACTORS, DID = ("user:anna", "operator"), ("dps.register", "dps.enroll", "dpsx.did", "iothub.put")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    clock = FakeClock()
    first = await open_database(database_url, clock)
    second = await open_database(database_url, clock, worker="w2") if "postgresql" in database_url else None
    for number in range(40):
        changes = Changes()
        for about in ("one", "two") if number % 4 else (f"thing-{number}",):
            changes.audit(ACTORS[number % 2], DID[number % 4], about, number=number)
        await (second if second is not None and number % 3 else first).commit(changes)
        clock.move(timedelta(seconds=number % 2))  # some at the same moment
    yield first
    await first.close()
    if second is not None:
        await second.close()


async def pages(database: Database, wanted: AuditQuery, limit: int) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    before: str | None = ""
    while before is not None:
        page = await latest(database, wanted, before=before, limit=limit)
        assert len(page.items) <= limit
        told += [dict(row) for row in page.items]
        before = page.last
    return told


async def test_they_come_latest_first_and_each_once(database: Database) -> None:
    told = await pages(database, AuditQuery(), 7)
    assert len({(row["chain"], row["seq"]) for row in told}) == len(told) == 70
    assert [row["at"] for row in told] == sorted((row["at"] for row in told), reverse=True)
    assert told[0].keys() == {"at", "actor", "action", "subject", "detail", "chain", "seq"}
    assert told[0]["detail"]["number"] in {38, 39}


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (AuditQuery(actor="operator"), 40),
        (AuditQuery(subject="one"), 30),
        (AuditQuery(action="dps.enroll"), 20),
        (AuditQuery(action="dps."), 30),
        (AuditQuery(action="dps"), 0),
        (AuditQuery(action="d."), 0),
        (AuditQuery(subject="one", actor="operator", action="dps."), 10),
        (AuditQuery(actor="user:anna", action="dps.register"), 10),
        (AuditQuery(actor="nobody"), 0),
        (AuditQuery(people=True), 70),
        (AuditQuery(people=True, subject="one"), 30),
    ],
)
async def test_they_are_picked(database: Database, wanted: AuditQuery, count: int) -> None:
    every = await pages(database, AuditQuery(), 250)
    told = await pages(database, wanted, 6)
    assert told == [row for row in every if wanted.matches_row(row)]
    assert len(told) == count


async def test_people_are_told_from_devices_and_programs(database: Database) -> None:
    for actor in ("device:pump-1", "user:bert", "access_key:AKIA", "users", "worker:w1"):
        await database.commit(Changes().audit(actor, "dps.register", "three"))
    told = await pages(database, AuditQuery(people=True, subject="three"), 6)
    assert [row["actor"] for row in told] == ["user:bert"]


async def test_rows_of_a_time_are_picked(database: Database) -> None:
    every = await pages(database, AuditQuery(), 250)
    since = datetime.fromisoformat(every[20]["at"])
    told = await pages(database, AuditQuery(since=since), 6)
    assert told == [row for row in every if datetime.fromisoformat(row["at"]) >= since]


async def test_a_page_looks_at_so_many_rows_and_no_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOOKED", 8)
    monkeypatch.setattr(module, "_EACH", 4)
    wanted = AuditQuery(subject="one", action="iothub.put")
    page = await latest(database, wanted, limit=100)
    assert len(page.items) < 10
    assert page.last is not None
    assert len(await pages(database, wanted, 100)) == 10


@pytest.mark.parametrize("before", ["x", "1", "1.x.main", "-"])
async def test_what_is_no_place_is_refused(database: Database, before: str) -> None:
    with pytest.raises(PageInvalidError):
        await latest(database, AuditQuery(), before=before, limit=1)


@pytest.mark.parametrize("asked", [ALL, *BY.values(), ACTIONS, PEOPLE])
async def test_they_are_found_by_an_index(database: Database, asked: Statement) -> None:
    if "sqlite" not in type(database).__module__:
        pytest.skip("PostgreSQL reads a table of seventy rows whole")
    compiled = asked.compiled("sqlite")
    sql = compiled.sql
    for _ in compiled.order:
        sql = sql.replace("?", "1", 1)
    plan = [str(row["detail"]) for row in await database.all(statement(text("EXPLAIN QUERY PLAN " + sql)))]
    assert not [line for line in plan if "SCAN audit" in line and "USING" not in line], plan
    assert not [line for line in plan if "FOR ORDER BY" in line and "LAST" not in line], plan


async def test_a_page_reads_a_few_pages_of_the_database(database_url: str) -> None:
    if "sqlite" in database_url:
        pytest.skip("it tells no pages")
    clock = FakeClock()
    database = await open_database(database_url, clock)
    for first in range(0, 6000, 20):
        changes = Changes()
        clock.move(timedelta(milliseconds=1))
        for number in range(first, first + 20):
            changes.audit(f"user:{number % 3}", "dps.enroll", f"pump-{number}")
        await database.commit(changes)
    await database.commit(Changes().run(statement(text("ANALYZE audit"))))
    for asked, said in ((ALL, {}), (BY["subject"], {"subject": "pump-77"}), (BY["actor"], {"actor": "user:anna"})):
        compiled = asked.compiled("postgresql")
        given = {"before_at": 2**62, "chain": "", "seq": 0, "limit": 5} | said
        sql = compiled.sql
        for number, name in reversed(list(enumerate(compiled.order, 1))):
            value = given[name]
            sql = sql.replace(f"${number}", f"'{value}'" if isinstance(value, str) else str(value))
        explain = statement(text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.replace(":", r"\:")))
        (row,) = await database.all(explain)
        plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 40, (said, plan)
    await database.close()
