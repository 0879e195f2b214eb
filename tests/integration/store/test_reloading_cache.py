"""A few rows in memory are what the database has, whatever became of a commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from birthmark import supervised_tasks
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.store import Changes, Database, reloading_cache
from birthmark.store.reloading_cache import ReloadingCache
from support.store.between import leave_the_next_commit_open
from support.store.store_table import ADD, ALL, a_database

pytestmark = pytest.mark.integration

ONE = Changes().run(ADD, id="a", n=1)


class Things:
    """Names of the rows there are, and how often they were read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.names: Sequence[str] = ()
        self.reads = 0

    async def read(self) -> None:
        self.reads += 1
        self.names = [row["id"] for row in await self._database.all(ALL)]


async def unanswered(database: Database) -> tuple[Things, ReloadingCache, Callable[[], Awaitable[None]]]:
    """Commit with the answer lost; what keeps it after all is the last that is returned."""
    things = Things(database)
    rows, keep = ReloadingCache(database, things.read), leave_the_next_commit_open(database)
    with pytest.raises(UnavailableError):
        await rows.committed(database.commit(ONE))
    return things, rows, keep


async def test_a_commit_is_read_before_its_caller_is_answered(database_url: str) -> None:
    async with a_database(database_url) as database:
        things = Things(database)
        await ReloadingCache(database, things.read).committed(database.commit(ONE))
        assert things.names == ["a"]


async def test_a_commit_that_is_kept_after_its_answer_was_lost_is_read_when_it_is(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading_cache, "_LOOK_EVERY_S", 0.01)
    async with a_database(database_url) as database:
        things, rows, keep = await unanswered(database)
        await asyncio.sleep(0.05)
        assert not things.names
        await keep()
        async with asyncio.timeout(5):
            while not things.names:
                await asyncio.sleep(0.01)
        await rows.stop()


async def test_it_is_read_once_more_when_the_engine_has_ended_it_and_then_no_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading_cache, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(reloading_cache, "UNSURE_S", 0.1)
    async with a_database(database_url) as database:
        things, rows, _ = await unanswered(database)
        async with asyncio.timeout(5):
            while rows._again is not None:
                await asyncio.sleep(0.01)
        reads = things.reads
        assert reads > 2
        await asyncio.sleep(0.05)
        assert things.reads == reads


async def test_nothing_is_read_in_the_background_after_the_stop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading_cache, "_LOOK_EVERY_S", 0.01)
    async with a_database(database_url) as database:
        things, rows, _ = await unanswered(database)
        await rows.stop()
        reads = things.reads
        await asyncio.sleep(0.05)
        assert things.reads == reads


async def test_a_commit_that_was_refused_is_read_once(database_url: str) -> None:
    async with a_database(database_url) as database:
        things = Things(database)
        await ReloadingCache(database, things.read).committed(database.commit(ONE))
        rows = ReloadingCache(database, things.read)
        with pytest.raises(ChangedMeanwhileError):
            await rows.committed(database.commit(ONE))
        assert things.reads == 2
        assert rows._again is None


async def test_a_reading_that_fails_by_anything_is_done_again_until_it_succeeds(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_tasks, "AGAIN_S", 0.01)
    async with a_database(database_url) as database:
        things, full = Things(database), [OSError(28, "no space left on device")] * 2

        async def read() -> None:
            if full:
                raise full.pop()
            await things.read()

        rows = ReloadingCache(database, read)
        await database.commit(ONE)
        with pytest.raises(OSError, match="no space"):
            await rows.load()
        async with asyncio.timeout(5):
            while not things.names:
                await asyncio.sleep(0.01)
        await rows.stop()
