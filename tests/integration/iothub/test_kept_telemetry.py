"""What is kept of telemetry, while much comes at once."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from birthmark.broker import chunked_deletes, store
from birthmark.broker.publisher_backpressure import UNWRITTEN_BYTES
from birthmark.iothub.model import TelemetryMessage, space_of
from birthmark.iothub.service import telemetry_streams
from birthmark.iothub.service.telemetry_streams import Telemetry
from birthmark.store import Changes, to_micros
from support.azure.hub_world import World, a_world, until

pytestmark = pytest.mark.integration
KEEP, MORE = 64 * 1024, 4 * 1024


async def send(kept: Telemetry, world: World, count: int) -> None:
    body = b"x" * 4096
    for _ in range(count):
        message = TelemetryMessage("device-1", to_micros(world.clock.now()), body, {}, {})
        await kept.write(world.hub, 1, [message], len(body))


async def test_only_the_worker_that_leads_takes_away_what_is_too_much(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        kept = Telemetry(world.iothub.hubs, world.database, world.clock, keep_bytes=KEEP)
        is_first = False

        async def leads() -> bool:
            return is_first

        kept.leads = leads
        await send(kept, world, 40)
        await kept.trim()
        (stream,) = kept.streams().values()
        assert stream.kept_bytes > 2 * KEEP
        is_first = True
        await kept.trim()
        assert stream.kept_bytes <= KEEP


async def test_a_disk_is_not_filled_between_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_streams, "_LOOK_EVERY_S", 0.01)
    async with a_world(tmp_path) as world:
        kept = Telemetry(world.iothub.hubs, world.database, world.clock, keep_bytes=KEEP)
        trimming = asyncio.create_task(kept.run_trim_loop())
        for _ in range(3):
            await send(kept, world, 40)
            await until(lambda: all(one.kept_bytes <= KEEP + MORE for one in kept.streams().values()))
        trimming.cancel()


async def test_a_hub_with_much_telemetry_is_removed_by_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_deletes, "PORTION_BYTES", KEEP)
    async with a_world(tmp_path) as world:
        await send(world.iothub.telemetry, world, 100)
        left = list[int]()
        commit = world.database.commit

        async def counted(changes: Changes) -> None:
            await commit(changes)
            rows = await world.database.all(store.OLDEST, stream=space_of(world.hub.name), first=0, limit=1000)
            left.append(sum(row["size"] for row in rows))

        monkeypatch.setattr(world.database, "commit", counted)
        await world.iothub.hubs.delete(world.hub.name, actor="test")
        assert left[-1] == 0
        portions = [before - after for before, after in pairwise([100 * 4096 + 100 * 64, *left])]
        assert len(portions) > 5
        assert max(portions) <= KEEP + 2 * 4096


async def test_what_one_device_has_unwritten_is_bounded_however_many_requests_bring_it(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        kept = world.iothub.telemetry
        stream: Any = kept.stream(world.hub)
        append, waiting = stream.append, list[tuple[Any, ...]]()
        stream.append = lambda *told: waiting.append(told)
        body = b"x" * 200_000

        def sent(key: int) -> asyncio.Task[None]:
            message = TelemetryMessage(f"device-{key}", to_micros(world.clock.now()), body, {}, {})
            return asyncio.create_task(kept.write(world.hub, key, [message], len(body)))

        requests = [sent(1) for _ in range(30)]
        other = sent(2)
        await until(lambda: any(key == 2 for key, *_ in waiting))
        assert sum(key == 1 for key, *_ in waiting) == 1 + UNWRITTEN_BYTES // len(body)
        stream.append = append
        for told in waiting:
            append(*told)
        await asyncio.gather(*requests, other)
