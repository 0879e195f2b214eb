"""The lines of `hub monitor`: pages, signs of life, what was missed; of one device among many."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.stream_partitions_and_positions import BEGINNING, Positions, key_of, parse_positions
from birthmark.iothub.model import Hub, TelemetryMessage
from birthmark.operator_api import message_stream_pages
from birthmark.operator_api.hubs_cas_and_telemetry import _message_view
from birthmark.operator_api.message_stream_pages import StreamQuery, pages
from birthmark.store import open_database, to_micros
from support.fakes import FakeClock

pytestmark = pytest.mark.integration
HUB = Hub("main", "hub.example", {})


class World:
    def __init__(self, stream: SqlStream[TelemetryMessage], clock: FakeClock) -> None:
        self.stream = stream
        self.clock = clock

    async def send(self, device: str, *bodies: str) -> None:
        done = asyncio.get_running_loop().create_future()
        messages = [TelemetryMessage(device, to_micros(self.clock.now()), body.encode(), {}, {}) for body in bodies]
        self.stream.append(key_of(device), messages, 1, done.set_result)
        assert await done is None
        self.clock.move(timedelta(seconds=1))

    def pages(self, where: Positions = BEGINNING, **query: Any) -> AsyncIterator[Mapping[str, Any]]:
        return pages(self.stream, where, StreamQuery(**query), partial(_message_view, HUB))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(f"sqlite:///{tmp_path / 'x.db'}", clock)
    yield World(SqlStream("hub/main", TelemetryMessage, database, clock), clock)
    await database.close()


def bodies(page: Mapping[str, Any]) -> list[str]:
    return [item["body"] for item in page["items"]]


async def test_pages_go_on_from_each_others_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_stream_pages, "PAGE", 2)
    await world.send("a", "1", "2", "3")
    await world.send("b", "4")
    pages = [page async for page in world.pages()]
    assert [bodies(page) for page in pages] == [["1", "2"], ["3", "4"]]
    (rest,) = [page async for page in world.pages(parse_positions(pages[0]["next"]))]
    assert bodies(rest) == ["3", "4"]
    (none,) = [page async for page in world.pages(parse_positions(rest["next"]))]
    assert (bodies(none), none["next"]) == ([], rest["next"])


async def test_a_quiet_stream_gives_signs_of_life_and_what_others_send_gives_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_stream_pages, "PAUSE_S", 0.001)
    monkeypatch.setattr(message_stream_pages, "SIGN_OF_LIFE_S", 0.2)
    pages = world.pages(follow=True, device="a")
    assert bodies(await anext(pages)) == []
    began = asyncio.get_running_loop().time()
    waiting = asyncio.ensure_future(anext(pages))
    for number in range(5):
        await world.send("b", str(number))
        await asyncio.sleep(0.005)
    assert bodies(await waiting) == []
    assert asyncio.get_running_loop().time() - began > 0.15
    await world.send("a", "mine")
    assert bodies(await anext(pages)) == ["mine"]


async def test_who_was_overtaken_is_told_once(world: World) -> None:
    await world.send("a", "1")
    await world.send("a", "2")
    await world.send("a", "3")
    first = await world.stream.read(BEGINNING, 1)
    await world.stream.trim(to_micros(world.clock.now() - timedelta(seconds=1)), 10**9)
    (page,) = [page async for page in world.pages(first.next)]
    assert (bodies(page), page["gap"]) == (["3"], True)
    (page,) = [page async for page in world.pages(parse_positions(page["next"]))]
    assert page["gap"] is False
