"""A database file that is only looked at."""

from pathlib import Path

import pytest

from birthmark.store import Changes
from birthmark.store.schema_revision import ReadOnlySqlite, UnreadableDatabaseError
from support.store.store_table import ADD, ALL, GET, a_database

pytestmark = pytest.mark.integration


async def a_file(directory: Path) -> Path:
    async with a_database(f"sqlite:///{directory}/one.db") as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
    return directory / "one.db"


async def test_what_is_there_is_read_and_nothing_is_put_beside_it(tmp_path: Path) -> None:
    file = await a_file(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    database = ReadOnlySqlite.open(file)
    assert [tuple(row) for row in await database.all(ALL)] == [("a", 1)]
    database.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


async def test_what_is_only_in_the_write_ahead_log_is_read_too(tmp_path: Path) -> None:
    async with a_database(f"sqlite:///{tmp_path}/one.db") as database:
        await database.commit(Changes().run(ADD, id="late", n=2))
        looking = ReadOnlySqlite.open(tmp_path / "one.db")
        assert [tuple(row) for row in await looking.all(GET, id="late")] == [("late", 2)]
        looking.close()


@pytest.mark.parametrize("text", [None, "", "this is no database" * 100])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "one.db"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UnreadableDatabaseError):
        ReadOnlySqlite.open(file)


async def test_a_table_that_is_missing_is_unreadable(tmp_path: Path) -> None:
    file = await a_file(tmp_path)
    database = ReadOnlySqlite.open(file)
    database._connection.close()
    with pytest.raises(UnreadableDatabaseError):
        await database.all(ALL)
