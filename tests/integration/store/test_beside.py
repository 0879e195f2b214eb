"""What several processes write of the same rows on PostgreSQL: nobody waits for a second, and none for the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from birthmark.broker import store
from birthmark.errors import ChangedMeanwhileError
from birthmark.net.fair_scheduler import Backlog
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock

pytestmark = pytest.mark.integration
LONG_S = 5.0
AWAY = {"owner": None, "expires_at": None, "expiry_s": 9, "cursor": 0, "sent": 0, "will": None, "will_at": None}


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    opened = await open_database(postgres_url, FakeClock(), worker="w1")
    await opened.commit(Changes().run(store.JOIN, id="w1-a", beat=0, missed=0, heard=0))
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def another_commit(url: str, sql: str) -> AsyncIterator[None]:
    """Another process that has written a row, and does not end its commit."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(sql)
            yield
    finally:
        await connection.close()


async def add_session(database: Database, client: str) -> None:
    state: dict[str, Any] = {**AWAY, "seen_at": 0, "gone": None}
    await database.commit(Changes().run(store.ADD, space="aws", client=client, epoch=1, tail=0, **state))


async def test_a_sign_of_life_waits_for_no_commit(database: Database, postgres_url: str) -> None:
    await add_session(database, "c")
    async with another_commit(postgres_url, "UPDATE sessions SET tail = 7"):
        waits = database.submit(Changes().run(store.SET_TAIL, tail=8, key_space="aws", key_client="c"))
        async with asyncio.timeout(LONG_S):
            assert await database.write_outside_batch(store.BEAT, beat=1, key_id="w1-a", key_beat=0, key_missed=0)
        assert not waits.done()
    await waits


async def test_a_commit_that_counts_on_a_worker_keeps_no_sign_of_its_life_waiting(
    database: Database, postgres_url: str
) -> None:
    held = store.STILL_LIVES.compiled("postgresql").sql.replace("$1::VARCHAR", "'w1-a'")
    async with another_commit(postgres_url, held), asyncio.timeout(LONG_S):
        assert await database.write_outside_batch(store.BEAT, beat=1, key_id="w1-a", key_beat=0, key_missed=0)
        await database.commit(Changes().run(store.STILL_LIVES, expect=1, key_id="w1-a"))


async def test_no_worker_is_declared_dead_while_a_commit_counts_on_it_and_nobody_waits(
    database: Database, postgres_url: str
) -> None:
    held = store.STILL_LIVES.compiled("postgresql").sql.replace("$1::VARCHAR", "'w1-a'")
    async with another_commit(postgres_url, held), asyncio.timeout(LONG_S):
        assert not await database.write_outside_batch(store.DECLARE_DEAD, id="w1-a", beat=0)
    assert await database.write_outside_batch(store.DECLARE_DEAD, id="w1-a", beat=0)


async def test_a_commit_that_counts_on_a_worker_who_is_dead_is_refused(database: Database) -> None:
    with pytest.raises(ChangedMeanwhileError):
        await database.commit(Changes().run(store.STILL_LIVES, expect=1, key_id="w9"))


async def test_a_row_that_fits_no_more_is_not_written(database: Database) -> None:
    assert not await database.write_outside_batch(store.BEAT, beat=9, key_id="w1-a", key_beat=8, key_missed=0)


async def test_two_who_write_the_same_queues_in_another_order_do_not_wait_for_each_other(
    database: Database, postgres_url: str
) -> None:
    for client in ("a", "b"):
        await add_session(database, client)

    def to(client: str) -> Changes:
        seen: dict[str, Any] = {"key_space": "aws", "key_client": client, "key_epoch": 1, "key_tail": 0}
        return Changes().run(store.ADVANCE_AWAY, expect=1, tail=1, **seen)

    async with another_commit(postgres_url, "UPDATE sessions SET tail = 7 WHERE client = 'b'"):
        async with asyncio.timeout(LONG_S):
            taken, refused = await asyncio.gather(
                database.commit(to("a")), database.commit(to("b")), return_exceptions=True
            )
    assert taken is None
    assert isinstance(refused, ChangedMeanwhileError)


async def test_the_connection_of_the_signs_of_life_comes_again_by_itself(database: Database, postgres_url: str) -> None:
    assert await database.write_outside_batch(store.BEAT, beat=1, key_id="w1-a", key_beat=0, key_missed=0)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await connection.close()
    assert await database.write_outside_batch(store.BEAT, beat=2, key_id="w1-a", key_beat=1, key_missed=0)


async def test_who_asks_very_much_keeps_nobody_elses_question_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = "many", list[str]()
    monkeypatch.setattr(Backlog, "current_owner", property(lambda _: asked))

    async def ask(name: str) -> None:
        await database.one(store.WORKER, id=name)
        answered.append(name)

    questions = [asyncio.create_task(ask(f"many-{number}")) for number in range(400)]
    await asyncio.sleep(0)
    asked = "single"
    await ask("single")
    assert len(answered) < 40
    await asyncio.gather(*questions)


async def test_two_commits_that_wait_for_each_other_do_not_wait_for_postgresql_to_see_it(postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    async with contextlib.AsyncExitStack() as stack:
        other = await asyncpg.connect(postgres_url)
        stack.push_async_callback(other.close)
        await other.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '1h'")
        await other.execute("SET deadlock_timeout = '1h'")
        ours = await open_database(postgres_url, FakeClock(), worker="w1")
        stack.push_async_callback(ours.close)
        for client in ("a", "b"):
            await add_session(ours, client)
        async with asyncio.timeout(LONG_S):
            async with other.transaction():
                await other.execute("UPDATE sessions SET tail = 7 WHERE client = 'a'")
                both = Changes()
                for client in ("b", "a"):
                    both.run(store.SET_TAIL, tail=8, key_space="aws", key_client=client)
                waits = ours.submit(both)
                while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
                await other.execute("UPDATE sessions SET tail = 7 WHERE client = 'b'")
            await waits
        assert await other.fetchval("SELECT min(tail) FROM sessions") == 8
