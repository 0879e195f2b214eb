"""A server on PostgreSQL whose database is taken by another: it says so, lets its clients go, and ends."""

import asyncio
import time
import urllib.error
import urllib.request
from pathlib import Path

import asyncpg
import pytest

from birthmark.store import database_lock
from support.server.servers import a_server
from support.services.flows import a_way

pytestmark = pytest.mark.system
_HELD = "SELECT pid FROM pg_stat_activity WHERE application_name = 'birthmark serve' AND datname = current_database()"


async def take_from_whoever_has_it(url: str) -> asyncpg.Connection:
    """Wait behind the server for its lock, and end the connection that has it."""
    thief, other = await asyncpg.connect(url), await asyncpg.connect(url)
    held = [row["pid"] for row in await other.fetch(_HELD)]
    taking = asyncio.create_task(thief.execute(database_lock._LOCK.replace("try_", "")))
    while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        await asyncio.sleep(0.02)
    for pid in held:
        await other.fetchval("SELECT pg_terminate_backend($1)", pid)
    await taking
    await other.close()
    return thief


def test_a_server_that_lost_its_database_to_another_ends(tmp_path: Path, postgres_url: str) -> None:
    with a_server(tmp_path, f'database = "{postgres_url}"\n', is_warm=False) as server:
        assert server.process is not None
        thief = asyncio.new_event_loop()
        connection = thief.run_until_complete(take_from_whoever_has_it(postgres_url))
        assert server.process.wait(30) == 1
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{server.endpoints['health_url']}/readyz", timeout=5)
        log = server.log()
        assert "Another server acquired the database" in log
        assert "birthmark serve" in log
        thief.run_until_complete(connection.close())
        thief.close()
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.process = None


def test_a_server_whose_database_answers_no_more_ends_when_it_is_told_to(tmp_path: Path, postgres_url: str) -> None:
    with a_way(postgres_url) as (url, way), a_server(tmp_path, f'database = "{url}"\n', is_warm=False) as server:
        way.forget()
        time.sleep(7)  # whoever looks now and then waits for an answer
        assert server.stop() == 0
