"""Databases that cannot be opened or held at all."""

import asyncio
from pathlib import Path

import pytest

from birthmark.store import open_database
from birthmark.store.database_lock import hold_database
from birthmark.store.sqlite import DatabaseUnavailableError
from support.fakes import FakeClock


async def test_a_url_of_another_engine_is_no_database() -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        await open_database("mysql://localhost/x", FakeClock())


@pytest.mark.parametrize("place", ["missing/one.db", "."], ids=["no such directory", "a directory"])
async def test_a_file_that_cannot_be_is_unavailable(tmp_path: Path, place: str) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await open_database(f"sqlite:///{tmp_path}/{place}", FakeClock())


async def test_a_file_where_nothing_can_be_put_beside_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await hold_database(f"sqlite:///{tmp_path}/missing/one.db")


async def test_who_stops_waiting_for_a_database_lets_it_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/one.db"
    release = await hold_database(url)

    async def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", interrupted)
        waiting = hold_database(url)
        try:
            await waiting
        except KeyboardInterrupt:
            pass
    await release()
    await (await hold_database(url))()
