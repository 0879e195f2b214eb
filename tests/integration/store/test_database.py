"""The unit of work, on SQLite and on a real PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import select

from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError
from birthmark.store import Changes, statement
from birthmark.store.chain import GENESIS, link
from birthmark.store.changes import AuditRow
from birthmark.store.schema import audit
from store_table import ADD, ALL, BUMP, GET, PUT, a_database

pytestmark = pytest.mark.integration

AUDIT = statement(select(audit).order_by(audit.c.seq))


async def test_a_committed_write_is_read_back(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        row = await database.one(GET, id="a")
        assert row is not None
        assert (row["id"], row["n"]) == ("a", 1)


async def test_a_committed_write_survives_closing_and_opening_again(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
    async with a_database(database_url) as database:
        assert await database.one(GET, id="a") is not None


async def test_every_commit_is_durable_by_the_engines_own_word(database_url: str) -> None:
    async with a_database(database_url) as database:
        assert await database.durability() in {"FULL", "on"}


async def test_a_failed_change_keeps_nothing_and_does_not_fail_its_neighbors(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="taken", n=1))
        outcomes = await asyncio.gather(
            database.commit(Changes().run(ADD, id="before", n=1)),
            database.commit(Changes().run(ADD, id="half", n=1).run(ADD, id="taken", n=2)),
            database.commit(Changes().run(ADD, id="after", n=1)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), ChangedMeanwhileError, type(None)]
        assert [row["id"] for row in await database.all(ALL)] == ["after", "before", "taken"]


async def test_a_conditional_write_on_a_version_that_has_passed_raises_its_own_error(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        await database.commit(Changes().run(BUMP, expect=1, key_id="a", key_n=1, n=2))
        with pytest.raises(ConflictError):
            await database.commit(Changes().run(BUMP, expect=1, key_id="a", key_n=1, n=3))
        with pytest.raises(NotFoundError):
            await database.commit(Changes().run(BUMP, expect=1, otherwise=NotFoundError(), key_id="b", key_n=1, n=3))


async def test_an_upsert_overwrites(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(PUT, id="a", n=1))
        await database.commit(Changes().run(PUT, id="a", n=5))
        row = await database.one(GET, id="a")
        assert row is not None
        assert row["n"] == 5


async def test_an_event_is_announced_only_when_its_change_is_kept(database_url: str) -> None:
    async with a_database(database_url) as database:
        heard: list[tuple[str, bool]] = []
        database.on_events(lambda events, is_sure: heard.extend((event.topic, is_sure) for event in events))
        await database.commit(Changes().run(ADD, id="a", n=1).event("thing.added", id="a"))
        with pytest.raises(ConflictError):
            await database.commit(Changes().run(ADD, id="a", n=1).event("thing.added", id="again"))
        rows = await database.events_after(0, 10)
        assert [(row["topic"], row["body"]) for row in rows] == [("thing.added", '{"id":"a"}')]
        assert heard == [("thing.added", True)]


async def test_events_that_were_handed_over_leave_with_the_next_commit(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().event("one"))
        (row,) = await database.events_after(0, 10)
        database.discard_events(row["id"])
        await database.commit(Changes().event("two"))
        assert [r["topic"] for r in await database.events_after(0, 10)] == ["two"]


async def test_audit_rows_form_a_chain_that_a_refused_change_leaves_unbroken(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1).audit("ann", "thing.add", "a", n=1))
        with pytest.raises(ConflictError):
            await database.commit(Changes().audit("eve", "thing.add", "a").run(ADD, id="a", n=1))
        await database.commit(Changes().audit("bob", "thing.look", "a"))
        previous = GENESIS
        rows = await database.all(AUDIT)
        assert [row["actor"] for row in rows] == ["ann", "bob"]
        for row in rows:
            written = AuditRow(row["actor"], row["action"], row["subject"], row["detail"])
            previous = link(previous, row["chain"], row["seq"], row["at"], written)
            assert row["digest"] == previous


async def test_many_changes_of_one_tick_share_a_transaction(tmp_path: object) -> None:
    async with a_database(f"sqlite:///{tmp_path}/one.db") as database:
        commits = []
        database._writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)  # type: ignore[attr-defined]  # SQLite's own
        await asyncio.gather(*(database.commit(Changes().run(ADD, id=f"t{i}", n=i)) for i in range(50)))
        assert len(commits) == 1
