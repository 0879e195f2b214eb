"""A device whose hub would change: nothing of it is lost in silence, on each real engine."""

import msgspec
import pytest

from birthmark.dps.document import ReprovisionPolicy
from birthmark.dps.rules.registration import RESET, HubChangeNotServedError
from birthmark.iothub.model import Hub
from dps_world import DpsWorld, a_dps, an_individual
from pki_builders import Holder, a_device

pytestmark = pytest.mark.integration


async def another_hub(world: DpsWorld) -> Hub:
    """Link a second hub."""
    made = await world.registry._hubs.create("second", "second.example", actor="test")
    world.instance = await world.instances.link("main", made.host, actor="test")
    return made


async def enroll(world: DpsWorld, device: Holder, *hubs: str, policy: ReprovisionPolicy | None = None) -> None:
    wished = an_individual("device-1", device)
    wished = msgspec.structs.replace(wished, iot_hubs=list(hubs) or None, reprovision_policy=policy)
    await world.enrollments.put(world.instance, wished, None, actor="test")


@pytest.mark.parametrize("migrates", [True, False])
async def test_a_device_with_data_is_not_moved_and_can_be_let_go(database_url: str, migrates: bool) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await enroll(world, device, world.hub.host)
        await world.register(device)
        await enroll(world, device, second.host, policy=ReprovisionPolicy(migrate_device_data=migrates))
        with pytest.raises(HubChangeNotServedError) as refused:
            await world.register(device)
        assert "birthmark dps release device-1" in refused.value.explain_fix()
        assert (await world.registry.device(world.hub, "device-1")).is_enabled
        assert not await world.registry.has(second.host, "device-1")
        await world.registrations.release(world.instance, "device-1", actor="test")
        assert (await world.register(device)).hub == second.host
        assert not await world.registry.has(world.hub.host, "device-1")


async def test_a_device_stays_where_its_policy_keeps_it(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await enroll(world, device, world.hub.host)
        await world.register(device)
        await enroll(world, device, second.host, policy=ReprovisionPolicy(update_hub_assignment=False))
        assert (await world.register(device)).hub == world.hub.host


async def test_a_device_of_a_hub_that_is_gone_begins_anew(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await enroll(world, device, second.host)
        await world.register(device)
        await world.registry._hubs.delete("second", actor="test")
        await enroll(world, device, world.hub.host)
        again = await world.register(device)
        assert (again.hub, again.substatus) == (world.hub.host, RESET)
