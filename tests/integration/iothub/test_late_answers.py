"""Answers that come late, and rows that go without a word: what is in memory stays true."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from birthmark.iothub import wire
from birthmark.iothub.model import C2dMessage
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.mqtt.packets import SubAck, Subscribe
from birthmark.store import Statement
from support.azure.hub_world import ON_RECORD, a_world, until

pytestmark = pytest.mark.integration


async def test_a_read_of_hubs_that_is_late_puts_back_no_key_that_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        hubs, database = world.iothub.hubs, world.database
        real, late, is_first = database.all, asyncio.Event(), True

        async def slow(statement: Statement, /, **params: Any) -> Sequence[Any]:
            nonlocal is_first
            rows = await real(statement, **params)
            if is_first:
                is_first = False
                await late.wait()
            return rows

        monkeypatch.setattr(database, "all", slow)
        loading = asyncio.create_task(hubs.load())
        await asyncio.sleep(0.01)
        rotating = asyncio.create_task(hubs.rotate("main", "iothubowner", "primary", actor="test"))
        await asyncio.sleep(0.05)
        late.set()
        made = await rotating
        await loading
        assert hubs.by_name("main").policies == made.policies


async def test_sessions_that_went_with_their_devices_are_counted_out(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected(clean=False)
        client.client.send(Subscribe(1, (("$iothub/twin/res/#", 1),)))
        link.data_received(client.client.data_to_send())
        await until(lambda: bool(client.got(SubAck)))
        link.connection_lost(None)
        await world.broker.wait_until_settled()
        assert world.connections.space("main").stored == 1
        await world.iothub.registry.remove(world.hub, "device-1", None, actor="test")
        await world.broker._recount_sessions()
        assert world.connections.space("main").stored == 0


async def test_a_message_to_a_device_that_goes_meanwhile_is_not_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        registry, hub = world.iothub.registry, world.hub
        real = world.iothub.c2d.inboxes.put

        async def remove_first(*given: Any, **more: Any) -> Any:
            await registry.remove(hub, "device-1", None, actor="test")
            return await real(*given, **more)

        monkeypatch.setattr(world.iothub.c2d.inboxes, "put", remove_first)
        asked: dict[str, Any] = {"message_id": "", "feedback": "", "expiry": None, "actor": "test"}
        with pytest.raises(UnknownDeviceError):
            await world.iothub.c2d.send(hub, "device-1", C2dMessage(b"secret", {}, {}), **asked)
        await registry.put(hub, "device-1", wire.DeviceBody("device-1"), ON_RECORD, None, actor="test")
        assert await world.iothub.c2d.count("main", "device-1") == 0
