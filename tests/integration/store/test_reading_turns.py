"""Reads of SQLite run in the loop: whoever reads much at once lets others have it between two reads."""

import asyncio
import itertools
from pathlib import Path

import pytest

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.net import fair_scheduler
from birthmark.net.fair_scheduler import Backlog
from birthmark.store import Database, open_database
from birthmark.store.core_tables import audit
from birthmark.store.table_statements import find
from support.fakes import FakeClock

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
READS = 50
ANY = find(audit)


class Peer:
    owner = "user:looker"


async def reading(database: Database) -> None:
    for seq in range(READS):
        await database.one(ANY, chain="main", seq=seq)
        await database.all(ANY, chain="main", seq=seq)


async def test_whoever_reads_much_at_once_goes_on_in_its_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks))  # each read takes longer than a slice
    monkeypatch.setattr(fair_scheduler, "SLICE_S", 1)
    monkeypatch.setattr(fair_scheduler, "TURN_S", 12)
    database = await open_database(f"sqlite:///{tmp_path / 'birthmark.db'}", FakeClock())
    task, looks = asyncio.ensure_future(Backlog.running().account_steps(reading(database), Peer())), 0
    while not task.done():
        looks += 1
        await asyncio.sleep(0)
    await database.close()
    assert looks > READS / 4
