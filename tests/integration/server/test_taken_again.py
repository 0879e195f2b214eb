"""What a restored server has to take back once more: from audit rows, and until all of it is done."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.console.losing import Became, Taken
from birthmark.server.losing.again import note_lost, take_back_again
from birthmark.server.losing.service import Losing
from birthmark.store import Changes, open_database
from fakes import FakeClock

pytestmark = pytest.mark.integration


class Rooms:
    """As much of the rooms as is asked."""

    def __init__(self, database: object) -> None:
        self.database = database


async def test_what_could_not_be_taken_back_is_tried_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became, asked = {"pump-1": Became.TAKEN_BACK, "pump-2": Became.FAILED}, []

    async def take_back(_self: object, name: str, *_: object, **__: object) -> list[Taken]:
        asked.append(name)
        return [Taken("hub main", "device", name, became[name])]

    monkeypatch.setattr(Losing, "take_back", take_back)
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    rooms: Any = Rooms(database)
    changes = Changes()
    note_lost(changes, {"pump-1": "keyCompromise", "pump-2": "keyCompromise"})
    await database.commit(changes)
    await take_back_again(rooms)
    became["pump-2"] = Became.TAKEN_BACK
    for _ in range(2):
        await take_back_again(rooms)
    assert asked == ["pump-1", "pump-2", "pump-2"]
    await database.close()
