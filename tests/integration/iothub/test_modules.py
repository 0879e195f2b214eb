"""What becomes of a device's modules when it is taken back, removed or made anew, on each real engine."""

import asyncio
import contextlib

import pytest

from birthmark.errors import BirthmarkError
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication
from birthmark.iothub.service.modules import TooManyModulesError, UnknownModuleError
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.iothub.wire import DeviceBody, DeviceCapabilities
from support.azure.dps_world import BY_HAND, DpsWorld, a_dps

pytestmark = pytest.mark.integration
NOTHING = DeviceAuthentication(AuthenticationType.SELF_SIGNED)
PINNED = DeviceAuthentication(AuthenticationType.SELF_SIGNED, b"t" * 32)


async def a_gateway(world: DpsWorld) -> None:
    body = DeviceBody(capabilities=DeviceCapabilities(iot_edge=True))
    device = await world.registry.put(world.hub, "gateway", body, BY_HAND, None, actor="test")
    await world.registry.modules.put(device, "camera", PINNED, actor="test")


async def proofs(world: DpsWorld) -> dict[str, DeviceAuthentication]:
    return {one.module_id: one.authentication for one in await world.registry.modules.of(world.hub, "gateway")}


async def test_who_has_a_device_that_was_taken_back_has_its_modules_proofs_for_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await a_gateway(world)
        await world.registry.revoke(world.hub, "gateway", "lost", actor="test")
        assert await proofs(world) == dict.fromkeys(("$edgeAgent", "$edgeHub", "camera"), NOTHING)


async def test_a_device_that_changes_its_modules_without_end_is_taken_back_with_them(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await a_gateway(world)
        keys = DeviceAuthentication(AuthenticationType.SAS, None, None, b"a thief's", b"a thief's")
        is_taken = False

        async def steal(number: int) -> None:
            while not is_taken:
                device = await world.registry.device(world.hub, "gateway")
                if not device.is_enabled:  # it is not let in any more
                    return
                with contextlib.suppress(BirthmarkError):
                    own = world.registry.modules.put(device, f"t{number}", keys, etag="*", actor="device:gateway")
                    await own
                with contextlib.suppress(BirthmarkError):
                    await world.registry.modules.put(device, f"t{number}", keys, actor="device:gateway")

        stealing = [asyncio.ensure_future(steal(number)) for number in range(6)]
        await asyncio.sleep(0.1)
        try:
            await world.registry.revoke(world.hub, "gateway", "lost", actor="test")
        finally:
            is_taken = True
            await asyncio.gather(*stealing)
        assert not (await world.registry.device(world.hub, "gateway")).is_enabled
        assert set((await proofs(world)).values()) == {NOTHING}


async def test_the_next_device_of_a_name_has_none_of_the_modules_of_the_one_before(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await a_gateway(world)
        await world.registry.remove(world.hub, "gateway", None, actor="test")
        await world.registry.put(world.hub, "gateway", DeviceBody(), BY_HAND, None, actor="test")
        assert await world.registry.modules.of(world.hub, "gateway") == []
        with pytest.raises(UnknownModuleError):
            await world.registry.identity(world.hub, "gateway/camera")


async def test_a_module_that_is_made_while_its_device_is_removed_is_there_with_it_or_not_at_all(
    database_url: str,
) -> None:
    async with a_dps(database_url) as world:
        for number in range(10):
            name = f"race-{number}"
            device = await world.registry.put(world.hub, name, DeviceBody(), BY_HAND, None, actor="test")
            await asyncio.gather(
                world.registry.modules.put(device, "camera", PINNED, actor="test"),
                world.registry.remove(world.hub, name, None, actor="test"),
                return_exceptions=True,
            )
            with pytest.raises(UnknownDeviceError):
                await world.registry.device(world.hub, name)
            assert await world.registry.modules.of(world.hub, name) == []


async def test_however_many_are_made_at_once_a_device_has_fifty(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = await world.registry.put(world.hub, "many", DeviceBody(), BY_HAND, None, actor="test")
        made = await asyncio.gather(
            *(world.registry.modules.put(device, f"m{number}", PINNED, actor="test") for number in range(60)),
            return_exceptions=True,
        )
        refused = [one for one in made if isinstance(one, BirthmarkError)]
        assert len(await world.registry.modules.of(world.hub, "many")) == 60 - len(refused) <= 50
        assert {type(one) for one in refused} <= {TooManyModulesError}


async def test_a_device_that_becomes_a_gateway_has_its_modules_then(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.registry.put(world.hub, "gateway", DeviceBody(), BY_HAND, None, actor="test")
        edge = DeviceBody(capabilities=DeviceCapabilities(iot_edge=True))
        for _ in range(2):
            await world.registry.put(world.hub, "gateway", edge, BY_HAND, "*", actor="test")
        assert set(await proofs(world)) == {"$edgeAgent", "$edgeHub"}
