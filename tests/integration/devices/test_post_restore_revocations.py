"""What a restored server has to take back once more: from audit rows, and until all of it is done."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from birthmark.ca import store
from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.devices.post_restore_revocations import add_pending, revoke_pending
from birthmark.devices.revocation import DeviceRevoker
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock

pytestmark = pytest.mark.integration


class ServerServices:
    """As much of the rooms as is asked."""

    def __init__(self, database: object) -> None:
        self.database = database


class Taking:
    """What is asked of `DeviceRevoker`, and what becomes of each device's part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: Database, **became: RevocationOutcome) -> None:
        self.became, self.asked = became, list[tuple[str, int]]()
        self.rooms: Any = ServerServices(database)
        taking = self

        async def take_back(losing: DeviceRevoker, name: str, *_: object, **__: object) -> list[RevokedPart]:
            taking.asked.append((name, len(losing.only)))
            return [RevokedPart("hub main", "device", name, taking.became[name])]

        monkeypatch.setattr(DeviceRevoker, "revoke", take_back)

    async def note(self, *names: str) -> None:
        changes = Changes()
        add_pending(changes, dict.fromkeys(names, "keyCompromise"), 1)
        await self.rooms.database.commit(changes)

    async def start(self) -> list[tuple[str, int]]:
        """Return the devices that a start takes back, and of how many parts; 0 is all."""
        self.asked.clear()
        await revoke_pending(self.rooms)
        return list(self.asked)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    yield opened
    await opened.close()


async def test_what_could_not_be_taken_back_is_tried_by_the_next_start_and_nothing_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = Taking(monkeypatch, database, one=RevocationOutcome.REVOKED, two=RevocationOutcome.FAILED)
    await taking.note("one", "two")
    assert await taking.start() == [("one", 0), ("two", 0)]
    taking.became["two"] = RevocationOutcome.REVOKED
    assert [await taking.start(), await taking.start()] == [[("two", 1)], []]


async def test_a_device_that_was_let_go_meanwhile_is_left_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = Taking(monkeypatch, database, One=RevocationOutcome.FAILED)
    await taking.note("One")
    await taking.start()
    await database.commit(Changes().run(store.FIND_NAME, key_name="one"))
    assert await taking.start() == []


async def test_a_second_restore_adds_to_what_the_first_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = Taking(monkeypatch, database, one=RevocationOutcome.FAILED, two=RevocationOutcome.FAILED)
    await taking.note("one")
    await taking.start()
    await taking.note("two")
    assert await taking.start() == [("one", 1), ("two", 0)]
