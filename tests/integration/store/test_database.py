"""The unit of work, on SQLite and on a real PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import select

from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError
from birthmark.store import Changes, Event, statement
from birthmark.store.core_tables import audit
from birthmark.store.database import ValueRefusedError
from birthmark.store.event_base_and_codec import decode_event
from birthmark.store.signed_audit_chain import GENESIS, link
from birthmark.store.unit_of_work import AuditRow
from support.store.store_table import ADD, ALL, BUMP, GET, PUT, ThingTold, a_database

pytestmark = pytest.mark.integration

AUDIT = statement(select(audit).order_by(audit.c.seq))


async def test_a_committed_write_is_read_back(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        row = await database.one(GET, id="a")
        assert row is not None
        assert (row["id"], row["n"]) == ("a", 1)


async def test_what_is_committed_is_read_aside_too(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        assert [tuple(row) for row in await database.read_in_background(GET, id="a")] == [("a", 1)]
        with pytest.raises(ValueRefusedError):
            await database.read_in_background(GET, id="\ud800")


async def test_what_is_read_aside_keeps_nobody_waiting(database_url: str) -> None:
    async with a_database(database_url) as database:
        aside = asyncio.create_task(database.read_in_background(ALL))
        await asyncio.sleep(0)
        assert not aside.done()
        await aside


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
        for otherwise in (NotFoundError(), NotFoundError):  # an error, or what creates it
            with pytest.raises(NotFoundError):
                await database.commit(Changes().run(BUMP, expect=1, otherwise=otherwise, key_id="b", key_n=1, n=3))


async def test_an_upsert_overwrites(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(PUT, id="a", n=1))
        await database.commit(Changes().run(PUT, id="a", n=5))
        row = await database.one(GET, id="a")
        assert row is not None
        assert row["n"] == 5


async def test_an_event_is_announced_only_when_its_change_is_kept(database_url: str) -> None:
    async with a_database(database_url) as database:
        heard: list[tuple[int, Event, bool]] = []
        database.on_events(lambda events, is_sure: heard.extend((*one, is_sure) for one in events))
        await database.commit(Changes().run(ADD, id="a", n=1).event(ThingTold("added")))
        with pytest.raises(ConflictError):
            await database.commit(Changes().run(ADD, id="a", n=1).event(ThingTold("added again")))
        (row,) = await database.events_after(0, 10)
        assert (row["seq"], row["kind"], decode_event(row["body"], ThingTold)) == (
            1,
            "test.thing_told",
            ThingTold("added"),
        )
        assert heard == [(1, ThingTold("added"), True)]


async def test_events_that_were_handed_over_leave_with_the_next_commit(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().event(ThingTold("one")))
        (row,) = await database.events_after(0, 10)
        database.discard_events(row["seq"])
        await database.commit(Changes().event(ThingTold("two")))
        assert [(r["seq"], "two" in r["body"]) for r in await database.events_after(0, 10)] == [(2, True)]


async def test_an_outbox_is_numbered_in_the_order_of_commits_without_gaps_by_refused_changes(database_url: str) -> None:
    async with a_database(database_url) as database:
        await asyncio.gather(
            *(database.commit(Changes().run(ADD, id=f"t{n % 5}", n=n).event(ThingTold(str(n)))) for n in range(8)),
            return_exceptions=True,
        )
        rows = await database.events_after(0, 10)
        told = [decode_event(row["body"], ThingTold).word for row in rows]
        assert [(row["seq"], word) for row, word in zip(rows, told, strict=True)] == [(n + 1, str(n)) for n in range(5)]


async def test_what_waits_in_the_outbox_is_there_after_a_restart_and_its_numbers_go_on(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().event(ThingTold("before")))
    async with a_database(database_url) as database:
        await database.commit(Changes().event(ThingTold("after")))
        assert [row["seq"] for row in await database.events_after(0, 10)] == [1, 2]


async def test_each_worker_has_an_outbox_and_an_audit_chain_of_its_own(database_url: str) -> None:
    async with a_database(database_url) as first, a_database(database_url, worker="w2") as second:
        for database in (first, second, first):
            await database.commit(Changes().event(ThingTold(database.worker)).audit("ann", "thing.look", "a"))
        for database, count in ((first, 2), (second, 1)):
            rows = await database.events_after(0, 10)
            assert [decode_event(row["body"], ThingTold).word for row in rows] == [database.worker] * count
        chains = [(row["chain"], row["seq"]) for row in await first.all(AUDIT)]
        assert sorted(chains) == [("main", 1), ("main", 2), ("w2", 1)]
        second.discard_events(1)
        await second.commit(Changes().event(ThingTold("later")))
        assert len(await first.events_after(0, 10)) == 2


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
