"""Devices are found at every place that somebody may look at, and where they are off the record no more."""

from collections.abc import Callable
from pathlib import Path

import pytest

from birthmark.console.devices import Found
from birthmark.server.finding import Finding
from birthmark.server.rooms import Rooms
from fakes import FakeClock
from interleaved import answered, opened
from interleaved_operations import OPERATIONS, fill

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def places(rooms: Rooms, begin: str, sees: Callable[[str], bool] = lambda _: True) -> list[tuple[str, str]]:
    return [(one.at, one.name) for one in await Finding(rooms).find(begin, "", 100, sees=sees)]


async def test_a_device_is_found_wherever_it_is_on_record(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["register own"])
        await answered(rooms, OPERATIONS["issue by password"])
        assert await places(rooms, "OWN") == [("dps/main", "own"), ("hub/hub", "own")]
        assert await places(rooms, "1") == [("aws", "thing-1"), ("hub/hub", "device-1")]
        assert await places(rooms, "bou") == [("server", "bound")]
        assert await places(rooms, "own", lambda place: place == "hub/hub") == [("hub/hub", "own")]


@pytest.mark.parametrize("operation", ["remove the device", "remove the hub"])
async def test_what_is_removed_is_not_found(tmp_path: Path, operation: str) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS[operation])
        assert await places(rooms, "device") == []


async def test_pages_follow_each_other_across_places(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["register own"])
        every, after = await Finding(rooms).find("o", "", 100, sees=lambda _: True), ""
        told: list[Found] = []
        while page := await Finding(rooms).find("o", after, 1, sees=lambda _: True):
            told += page
            after = page[-1].after
        assert told == list(every)
        assert len(told) > 2
