"""Changes of one twin that come at once: with `If-Match: *`, none hears that another was faster."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub.model import DeviceId, Hub, Twin
from birthmark.iothub.rules.twins import TwinVersionError
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.iothub.wire import DeviceBody
from birthmark.mqtt.packets import Publish
from support.azure.hub_world import ON_RECORD, a_world, until

pytestmark = pytest.mark.integration
AT_ONCE = 40


@pytest.mark.parametrize("etag", ["*", None])
async def test_patches_at_once_are_all_made_where_any_state_is_meant(tmp_path: Path, etag: str | None) -> None:
    async with a_world(tmp_path) as world:
        twins = world.iothub.twins

        async def patch(number: int) -> None:
            body = {"tags": {f"t{number}": number}}
            await twins.desire(world.hub, "device-1", body, etag, replaces=False, actor="test")

        device = await world.iothub.registry.device(world.hub, "device-1")

        async def report(number: int) -> None:
            await twins.report(world.hub, device, {f"r{number}": number}, None)

        await asyncio.gather(*(change(number) for number in range(AT_ONCE) for change in (patch, report)))
        twin = await twins.get(world.hub, "device-1")
        assert twin.tags == {f"t{number}": number for number in range(AT_ONCE)}
        assert twin.reported.values == {f"r{number}": number for number in range(AT_ONCE)}


async def test_of_patches_for_one_state_one_is_made(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        twins = world.iothub.twins
        etag = (await twins.get(world.hub, "device-1")).etag
        asked = [
            twins.desire(world.hub, "device-1", {"tags": {"n": n}}, etag, replaces=False, actor="test")
            for n in range(AT_ONCE)
        ]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, TwinVersionError) for one in told) == AT_ONCE - 1


async def test_what_a_device_asked_before_it_was_gone_is_not_answered_and_what_it_reported_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        twins, read = world.iothub.twins, []
        real = twins.get

        async def get(hub: Hub, device_id: DeviceId) -> Twin:
            read.append(device_id)
            return await real(hub, device_id)

        monkeypatch.setattr(twins, "get", get)
        for _ in range(20):
            client.client.send(Publish("$iothub/twin/GET/?$rid=1", b""))
        client.client.send(Publish("$iothub/twin/PATCH/properties/reported/?$rid=2", b'{"last": 1}'))
        link.data_received(client.client.data_to_send())
        link.connection_lost(None)
        await until(lambda: link.is_over)
        assert read == []
        twin = await real(world.hub, DeviceId("device-1"))
        assert twin.reported.values == {"last": 1}


@pytest.mark.parametrize("has_twin", [True, False])
async def test_what_a_device_reports_is_not_the_next_one_s_of_its_name(tmp_path: Path, *, has_twin: bool) -> None:
    async with a_world(tmp_path) as world:
        registry, twins = world.iothub.registry, world.iothub.twins
        former = await registry.device(world.hub, "device-1")
        await twins.report(world.hub, former, {"who": "former"}, None)
        await registry.remove(world.hub, "device-1", None, actor="test")
        world.clock.move(timedelta(seconds=1))
        device = await registry.put(world.hub, "device-1", DeviceBody("device-1"), ON_RECORD, None, actor="test")
        if has_twin:
            await twins.report(world.hub, device, {"who": "next"}, None)
        with pytest.raises((UnknownDeviceError, ChangedMeanwhileError)):
            await twins.report(world.hub, former, {"who": "former"}, None)
        assert (await twins.get(world.hub, "device-1")).reported.values == ({"who": "next"} if has_twin else {})
