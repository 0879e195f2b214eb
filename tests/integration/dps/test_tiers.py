"""Registrations at a provisioning service, or to a hub, with a tier."""

from datetime import timedelta

import pytest

from birthmark.dps.error_mapping import http_error
from birthmark.dps.rules.tiers import DpsTierThrottledError, ThrottledOperation
from birthmark.iothub.rules.tier_throttles_and_quotas import Edition, Tier, TooManyDevicesError
from birthmark.iothub.wire import DeviceBody
from support.azure.dps_world import BY_HAND, a_dps
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration


async def test_a_device_registers_no_more_where_its_hubs_tier_is_full(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(common_name="pump-1")
        await world.individual("pump-1", device)
        world.hub = await world.iothub.hubs.set_tier("main", Edition(Tier.F1), actor="test")
        for number in range(500):
            body = DeviceBody(f"d{number}")
            await world.registry.put(world.hub, body.device_id or "", body, BY_HAND, None, actor="test")
        with pytest.raises(TooManyDevicesError) as caught:
            await world.register(device)
        assert http_error(caught.value)[0] == 400  # a wrong proof it is not
        await world.registry.remove(world.hub, "d0", None, actor="test")
        assert (await world.register(device)).device_id == "pump-1"
        assert (await world.register(device)).device_id == "pump-1"  # it is there, and takes no more room


async def test_a_service_with_a_tier_takes_a_thousand_registrations_a_minute(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(common_name="pump-1")
        await world.individual("pump-1", device)
        world.instance = await world.instances.set_tier("main", "S1", actor="test")
        for _ in range(999):
            world.instances.take(ThrottledOperation.REGISTRATION, world.instance)
        await world.register(device)
        with pytest.raises(DpsTierThrottledError):
            await world.register(device)
        world.clock.move(timedelta(seconds=1))
        await world.register(device)


async def test_a_service_without_a_tier_takes_what_comes_and_another_has_its_own(database_url: str) -> None:
    async with a_dps(database_url) as world:
        for _ in range(2000):
            world.instances.take(ThrottledOperation.REGISTRATION, world.instance)
        made = await world.instances.set_tier("main", "S1", actor="test")
        await world.instances.load()
        assert world.instances.by_name("main") == made
        assert (await world.instances.set_tier("main", None, actor="test")).tier is None
