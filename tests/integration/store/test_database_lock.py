"""One server per database, on both engines: `hold_database` as a server uses it."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from birthmark.store import database_lock
from birthmark.store.database_lock import DatabaseInUseError, hold_database
from support.services.flows import a_way

pytestmark = pytest.mark.integration

HOLD = """
import asyncio, sys
from birthmark.store.database_lock import hold_database
async def main():
    release = await hold_database(sys.argv[1])
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_lock, "_PATIENCE", 10)


async def test_a_database_that_is_held_is_refused_to_a_second_server(database_url: str) -> None:
    release = await hold_database(database_url)
    with pytest.raises(DatabaseInUseError, match="Another server uses the database"):
        await hold_database(database_url)
    await release()


async def test_a_database_that_was_let_go_is_held_by_the_next(database_url: str) -> None:
    for _ in range(3):
        await (await hold_database(database_url))()


async def test_a_server_that_comes_while_the_other_goes_waits_for_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_lock, "_PATIENCE", 200)

    release = await hold_database(database_url)
    waiting = asyncio.create_task(hold_database(database_url))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await release()
    await (await waiting)()


async def test_a_server_that_was_killed_holds_nothing(database_url: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, database_url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"

        with pytest.raises(DatabaseInUseError):
            await hold_database(database_url)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    await (await hold_database(database_url))()


async def test_a_database_server_that_starts_anew_is_held_again(postgres_url: str) -> None:
    held = (
        "SELECT array_agg(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    release = await hold_database(postgres_url)
    beside = await asyncpg.connect(postgres_url)
    (first,) = await beside.fetchval(held)
    await beside.execute("SELECT pg_terminate_backend($1)", first)
    async with asyncio.timeout(10):
        while await beside.fetchval(held) in (None, [first]):
            await asyncio.sleep(0.05)
    await beside.close()
    with pytest.raises(DatabaseInUseError):
        await hold_database(postgres_url)
    await release()
    await (await hold_database(postgres_url))()


async def test_a_file_is_held_under_each_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tmp_path)

    release = await hold_database(f"sqlite:///{tmp_path}/one.db")
    with pytest.raises(DatabaseInUseError):
        await hold_database(f"sqlite:///{tmp_path}/other/one.db")
    await release()


async def test_the_password_of_a_database_in_use_is_not_told(postgres_url: str) -> None:
    url = postgres_url.replace("birthmark@", "birthmark:hush-hush@")

    release = await hold_database(url)
    with pytest.raises(DatabaseInUseError) as refused:
        await hold_database(url)
    await release()
    assert "hush-hush" not in f"{refused.value}{refused.value.explain_cause()}"


async def _sessions_that_hold(url: str) -> list[int]:
    asking = await asyncpg.connect(url)
    rows = await asking.fetch(
        "SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted "
        "AND a.application_name = 'birthmark serve' AND a.datname = current_database()"
    )
    await asking.close()
    return [row["pid"] for row in rows]


async def _end(url: str, pid: int) -> None:
    asking = await asyncpg.connect(url)
    await asking.fetchval("SELECT pg_terminate_backend($1)", pid)
    await asking.close()


async def test_a_hold_whose_connection_ended_is_taken_again_where_nobody_else_had_it(postgres_url: str) -> None:
    hold = await hold_database(postgres_url, "me")
    (first,) = await _sessions_that_hold(postgres_url)
    await _end(postgres_url, first)
    async with asyncio.timeout(10):
        while await _sessions_that_hold(postgres_url) in ([], [first]):
            await asyncio.sleep(0.02)
        while not hold.is_held:
            await asyncio.sleep(0.02)
    assert not hold.lost.done()
    await hold.release()


async def test_a_hold_that_somebody_else_took_is_lost(postgres_url: str) -> None:
    hold = await hold_database(postgres_url, "me")
    other = await asyncpg.connect(postgres_url)
    taking = asyncio.create_task(other.execute(database_lock._LOCK.replace("try_", "")))
    await asyncio.sleep(0.1)
    (held,) = await _sessions_that_hold(postgres_url)
    await _end(postgres_url, held)
    await taking
    error = await asyncio.wait_for(hold.lost, 10)
    assert error.code == "store.database_lost"
    assert not hold.is_held
    await hold.release()
    await other.close()


async def test_a_hold_that_somebody_else_had_meanwhile_is_lost(postgres_url: str) -> None:
    hold = await hold_database(postgres_url, "me")
    other = await asyncpg.connect(postgres_url)
    await other.execute("CREATE TABLE server_facts (name text PRIMARY KEY, value text)")
    await other.execute("INSERT INTO server_facts VALUES ('server.holder', 'me')")
    hold.mark_noted()
    await other.execute("UPDATE server_facts SET value = 'another'")
    (held,) = await _sessions_that_hold(postgres_url)
    await _end(postgres_url, held)
    await asyncio.wait_for(hold.lost, 10)
    await hold.release()
    await other.close()


async def test_a_connection_that_is_dead_without_a_word_is_found_by_looking(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_lock, "_LOOK_S", 0.05)
    hold = await hold_database(postgres_url, "me")
    (first,) = await _sessions_that_hold(postgres_url)
    monkeypatch.setattr(database_lock, "_answers", lambda _connection: asyncio.sleep(0, result=False))
    async with asyncio.timeout(10):
        while await _sessions_that_hold(postgres_url) in ([], [first]):
            await asyncio.sleep(0.02)
    await hold.release()


async def test_a_hold_is_looked_after_whatever_the_look_ends_with(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, looks = await hold_database(postgres_url, "me"), []
    answers = database_lock._answers

    async def failing_once(connection: object) -> bool:
        looks.append(connection)
        if len(looks) == 1:
            raise asyncpg.InternalClientError("got result for unknown protocol state 3")
        return await answers(connection)

    monkeypatch.setattr(database_lock, "_LOOK_S", 0.02)
    monkeypatch.setattr(database_lock, "_AGAIN_S", 0.02)
    monkeypatch.setattr(database_lock, "_answers", failing_once)
    async with asyncio.timeout(20):
        while not (holding_now := await _sessions_that_hold(postgres_url)):  # it may have looked, and failed, already
            await asyncio.sleep(0.02)
    await _end(postgres_url, holding_now[0])  # wakes the keeper, which waits by the long time it began with
    async with asyncio.timeout(20):
        while len(looks) < 3 or not hold.is_held:
            await asyncio.sleep(0.02)
    assert not hold.lost.done()
    await hold.release()


async def test_a_hold_is_taken_again_though_the_database_does_not_know_that_its_line_is_cut(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_lock, "_LOOK_S", 0.3)
    monkeypatch.setattr(database_lock, "_CLOSE_S", 0.3)
    with a_way(postgres_url) as (url, way):
        hold = await hold_database(url, "first")
        (before,) = await _sessions_that_hold(postgres_url)
        way.forget()
        async with asyncio.timeout(20):
            while await _sessions_that_hold(postgres_url) == [before]:
                await asyncio.sleep(0.1)
            while not hold.is_held:
                await asyncio.sleep(0.1)
        assert not hold.lost.done()
        await hold.release()
