"""The bus of one process drains its outbox while commits are on their way: each event is told once."""

import asyncio
from pathlib import Path

import pytest

from birthmark.bus.local import LocalBus
from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Changes, open_database
from birthmark.store.database import Hear
from support.store.store_table import ThingTold

pytestmark = pytest.mark.integration


async def test_an_event_whose_row_is_read_before_its_commit_is_heard_of_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/x.db", SystemClock())
    late: list[Hear] = []
    monkeypatch.setattr(database, "on_events", late.append)
    told: list[str] = []
    bus = LocalBus(database)
    bus.on(ThingTold, lambda event: told.append(event.word))
    bus.start()
    try:
        for number in (1, 2):  # alike, each of its own commit
            await database.commit(Changes().event(ThingTold("word")))
            bus._wanted.set()
            async with asyncio.timeout(5):
                while len(told) < number:
                    await asyncio.sleep(0.01)
            if number == 1:
                late[0]([(1, ThingTold("word"))], True)
                await asyncio.sleep(0.05)
        assert told == ["word", "word"]
        assert not bus._handed_on
    finally:
        await bus.stop()
        await database.close()
