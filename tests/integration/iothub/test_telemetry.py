"""Messages become segments, bounded by count and bytes, and are found again by device."""

import asyncio
from pathlib import Path

import pytest

from birthmark.iothub import store
from birthmark.iothub.model import Hub, Message
from birthmark.iothub.service import telemetry
from birthmark.iothub.service.telemetry import Telemetry
from birthmark.store import Database, open_database
from fakes import FakeClock

pytestmark = pytest.mark.integration
HUB = Hub("main", "hub.example", {})


def a_message(device: str, body: bytes) -> Message:
    return Message(device, 0, body, {}, {})


async def sent(database: Database, *bursts: list[Message]) -> Telemetry:
    room = Telemetry(database, FakeClock())
    intake = room.intake(HUB)
    done: list[BaseException | None] = []
    for burst in bursts:
        intake.add(burst, sum(len(message.body) for message in burst), done.append)
    await room.settled()
    while len(done) < len(bursts):
        await asyncio.sleep(0)
    assert done == [None] * len(bursts)
    return room


async def test_the_latest_of_one_device_are_found_among_all(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'x.db'}", FakeClock())
    bursts = [[a_message(f"d{n % 3}", str(n).encode())] for n in range(9)]
    room = await sent(database, *bursts)
    assert [m.body for m in await room.latest(HUB, "d1", 2)] == [b"4", b"7"]
    assert [m.body for m in await room.latest(HUB, None, 3)] == [b"6", b"7", b"8"]
    assert await room.latest(HUB, "nobody", 3) == []
    await database.close()


async def test_large_messages_are_cut_into_segments_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_MAX_SEGMENT_BYTES", 1000)
    database = await open_database(f"sqlite:///{tmp_path / 'x.db'}", FakeClock())
    room = await sent(database, *[[a_message("d", bytes([n]) * 600)] for n in range(6)])
    rows = await database.all(store.SEGMENTS_BEFORE, hub="main", before=2**62, limit=10)
    assert [len(telemetry.messages_of(row["body"])) for row in rows] == [2, 2, 2]
    assert [m.body[0] for m in await room.latest(HUB, "d", 10)] == list(range(6))
    await database.close()
