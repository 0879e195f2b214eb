"""Everything of a database into another of the other engine: whole, once, and told where it went."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import birthmark
from birthmark import atomic_files
from birthmark.clock_and_entropy import SystemClock
from birthmark.server.backup import database_copy_and_import, database_move
from birthmark.server.backup.database_move import MovedOtherwiseError, MoveTargetInUseError, move_database, redact_url
from birthmark.server.data_dir import MOVING, DataDirectory
from birthmark.server.database_installation_facts import DatabaseMovedError, check_not_restoring_or_moved
from birthmark.store import Database, hold_database, open_database
from birthmark.store.database_lock import DatabaseInUseError
from support.fakes import SeededEntropy
from support.server.data_world import a_data_directory, contents

pytestmark = pytest.mark.integration


async def moved(data: Path, source: str, target: str) -> int:
    done = await move_database(data, source, target, SystemClock(), SeededEntropy(), lambda _: None)
    return done.rows


async def may_serve(data: Path, url: str) -> None:
    database = await open_database(url, SystemClock())
    try:
        await check_not_restoring_or_moved(database, data)
    finally:
        await database.close()


async def test_it_is_whole_in_the_other_engine_and_the_old_one_says_where_it_went(
    database_url: str, postgres_url: str, tmp_path: Path
) -> None:
    data = await a_data_directory(tmp_path, database_url)
    before = await contents(data, database_url)
    target = postgres_url if database_url.startswith("sqlite") else f"sqlite:///{tmp_path}/new.db"
    assert await moved(data, database_url, target) > 20
    assert await contents(data, target) == before
    await may_serve(data, target)
    with pytest.raises(DatabaseMovedError) as refused:
        await may_serve(data, database_url)
    assert refused.value.to == redact_url(target)


async def test_it_goes_back_as_it_went(postgres_url: str, tmp_path: Path) -> None:
    first, last = f"sqlite:///{tmp_path}/data/birthmark.db", f"sqlite:///{tmp_path}/back.db"
    data = await a_data_directory(tmp_path, first)
    before = await contents(data, first)
    await moved(data, first, postgres_url)
    await moved(data, postgres_url, last)
    assert await contents(data, last) == before
    await may_serve(data, last)


async def test_what_has_rows_is_never_moved_into(tmp_path: Path) -> None:
    source, target = (f"sqlite:///{tmp_path}/{name}/birthmark.db" for name in ("data", "other/data"))
    data = await a_data_directory(tmp_path, source)
    (tmp_path / "other").mkdir()
    others = await a_data_directory(tmp_path / "other", target)
    before = await contents(others, target)
    with pytest.raises(MoveTargetInUseError):
        await moved(data, source, target)
    assert await contents(others, target) == before
    await may_serve(data, source)


async def test_a_database_that_is_served_is_not_moved(tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, source)
    hold = await hold_database(source)
    with pytest.raises(DatabaseInUseError):
        await moved(data, source, f"sqlite:///{tmp_path}/new.db")
    await hold.release()


async def test_what_came_otherwise_than_it_left_is_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = f"sqlite:///{tmp_path}/data/birthmark.db", f"sqlite:///{tmp_path}/new.db"
    data = await a_data_directory(tmp_path, source)
    load = database_copy_and_import.load

    async def loaded(*arguments: Any) -> None:
        await load(*arguments)
        with closing(sqlite3.connect(tmp_path / "new.db")) as there:
            there.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
            there.commit()

    monkeypatch.setattr(database_move, "load", loaded)
    with pytest.raises(MovedOtherwiseError) as refused:
        await moved(data, source, target)
    assert refused.value.tables == "audit"
    await may_serve(data, source)


@pytest.mark.parametrize("where", ["load", "release_database"])
async def test_what_was_interrupted_is_begun_again_by_the_same_command(
    where: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, source)
    before = await contents(data, source)
    real = getattr(database_move, where)

    async def cut(database: Database, *rest: Sequence[object]) -> None:
        if where == "load":
            await real(database, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(database_move, where, cut)
    with pytest.raises(KeyboardInterrupt):
        await moved(data, source, postgres_url)
    monkeypatch.undo()
    await moved(data, source, postgres_url)
    assert await contents(data, postgres_url) == before
    await may_serve(data, postgres_url)
    assert not list(data.glob(".moving-*"))


async def test_a_killed_moves_copies_go_with_the_next_start_and_those_of_one_that_runs_stay(
    tmp_path: Path,
) -> None:
    data = await a_data_directory(tmp_path, f"sqlite:///{tmp_path}/data/birthmark.db")
    for left in (".moving-0a1b", ".moving-killed"):  # as version 0.2 called them, and as they are called
        (data / left).mkdir()
        (data / left / "copied.db").touch()
    directory = DataDirectory(data, SystemClock(), SeededEntropy())
    with atomic_files.private_directory(data, MOVING) as in_use:
        directory.prepare()
        assert list(data.glob(".moving*")) == [in_use]
    directory.release()


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(one.stat().st_mode & 0o1 for one in Path(birthmark.__file__).parents),
    reason="only root acts for another user, who has to be able to read the program",
)
async def test_what_root_moves_into_another_users_directory_is_that_users(postgres_url: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # other users may pass through it, which those of pytest are not
        data = await a_data_directory(Path(place), f"sqlite:///{place}/data/birthmark.db")
        await moved(data, f"sqlite:///{data}/birthmark.db", postgres_url)
        for one in (data, *data.rglob("*")):
            shutil.chown(one, "nobody", "nogroup")
        await moved(data, postgres_url, f"sqlite:///{data}/back.db")
        assert {one.owner() for one in data.glob("back.db*")} == {"nobody"}


async def test_what_was_moved_is_not_moved_once_more(postgres_url: str, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, source)
    await moved(data, source, postgres_url)
    for target in (postgres_url, f"sqlite:///{tmp_path}/third.db"):
        with pytest.raises(DatabaseMovedError):
            await moved(data, source, target)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (
            "postgresql://birthmark:secret@db:5433/plant?sslmode=require&password=x",
            "postgresql://birthmark@db:5433/plant?sslmode=require",
        ),
        ("postgresql:///birthmark", "postgresql:///birthmark"),
        ("sqlite:////var/lib/birthmark/birthmark.db", "sqlite:////var/lib/birthmark/birthmark.db"),
    ],
)
def test_no_password_is_noted(url: str, name: str) -> None:
    assert redact_url(url) == name
