"""A device whose hub would change: nothing of it is lost in silence, on each real engine."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from birthmark.dps.enrollment_document import ReprovisionPolicy
from birthmark.dps.rules.registration import MIGRATED, RESET
from birthmark.dps.service.registrations import RegistrationBusyError
from birthmark.iothub.domain_events import DeviceChanged
from birthmark.iothub.model import Hub, Twin
from birthmark.iothub.rules.provisioned_identity_ownership import DeviceHeldError
from birthmark.iothub.service import Twins
from birthmark.iothub.wire import DeviceBody
from support.azure.dps_world import BY_HAND, DpsWorld, a_dps, an_individual
from support.pki.pki_builders import Holder, a_device

pytestmark = pytest.mark.integration


async def another_hub(world: DpsWorld) -> Hub:
    """Link a second hub."""
    made = await world.registry._hubs.create("second", "second.example", actor="test")
    world.instance = await world.instances.link("main", made.host, actor="test")
    return made


async def enroll(
    world: DpsWorld, device: Holder, *hubs: str, policy: ReprovisionPolicy | None = None, **more: Any
) -> None:
    wished = an_individual("device-1", device)
    named = {"iot_hubs": list(hubs), "allocation_policy": "hashed"} if hubs else {}
    wished = msgspec.structs.replace(wished, reprovision_policy=policy, **named, **more)
    await world.enrollments.put(world.instance, wished, None, actor="test")


def changes_of(world: DpsWorld) -> list[Any]:
    """Return the list in which what is announced from now on stands."""
    heard: list[Any] = []
    world.database.on_events(lambda events, _is_sure: heard.extend(event for _, event in events))
    return heard


async def told(world: DpsWorld, hub: Hub) -> Twin:
    """Return the twin at a hub."""
    return await Twins(world.database, world.clock, world.registry).get(hub, "device-1")


async def lived(world: DpsWorld, device: Holder) -> Twin:
    """Register at the first hub, and let the twin have something to lose."""
    await enroll(world, device, world.hub.host)
    await world.register(device)
    twins = Twins(world.database, world.clock, world.registry)
    here = await world.registry.device(world.hub, "device-1")
    await twins.report(world.hub, here, {"mode": "slow"}, None)
    wish = {"tags": {"site": 7}, "properties": {"desired": {"speed": 3}}}
    return await twins.desire(world.hub, "device-1", wish, None, replaces=False, actor="test")


async def test_a_device_takes_its_twin_along_and_is_gone_where_it_was(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        before = await lived(world, device)
        heard = changes_of(world)
        await enroll(world, device, second.host)
        moved = await world.register(device)
        assert (moved.hub, moved.substatus) == (second.host, MIGRATED)
        assert not await world.registry.has(world.hub.host, "device-1")
        assert (await told(world, world.hub)).version == 1
        assert await told(world, second) == msgspec.structs.replace(before, hub="second")
        assert DeviceChanged("main", "device-1", is_off=True) in heard
        again = await world.register(device)
        assert (again.hub, again.substatus) == (second.host, MIGRATED)


async def test_a_device_that_is_reset_begins_as_its_enrollment_says(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await lived(world, device)
        policy, first = ReprovisionPolicy(migrate_device_data=False), {"tags": {"site": 8}}
        await enroll(world, device, second.host, policy=policy, initial_twin=first)
        moved = await world.register(device)
        assert (moved.hub, moved.substatus) == (second.host, RESET)
        twin = await told(world, second)
        assert (twin.tags, twin.reported.values, twin.desired.values) == ({"site": 8}, {}, {})
        assert not await world.registry.has(world.hub.host, "device-1")


@pytest.mark.parametrize("migrates", [True, False])
async def test_what_an_operator_switched_off_stays_off_at_the_other_hub(database_url: str, migrates: bool) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await lived(world, device)
        await world.registry.set_enabled(world.hub, "device-1", is_enabled=False, actor="test")
        await enroll(world, device, second.host, policy=ReprovisionPolicy(migrate_device_data=migrates))
        await world.register(device)
        assert not (await world.registry.device(second, "device-1")).is_enabled


async def test_what_it_left_at_the_other_hub_gives_way_to_it(database_url: str) -> None:
    """Its registration was forgotten, and it went elsewhere; it comes back to where something of it still is."""
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await lived(world, device)
        await world.registrations.delete(world.instance, "device-1", actor="test")
        await enroll(world, device, second.host)
        await world.register(device)
        wish = {"tags": {"from": "second"}}
        twins = Twins(world.database, world.clock, world.registry)
        await twins.desire(second, "device-1", wish, None, replaces=False, actor="test")
        await world.registry.set_enabled(second, "device-1", is_enabled=False, actor="test")
        await enroll(world, device, world.hub.host)
        assert (await world.register(device)).substatus == MIGRATED
        assert (await told(world, world.hub)).tags == {"from": "second"}
        assert not (await world.registry.device(world.hub, "device-1")).is_enabled
        assert not await world.registry.has(second.host, "device-1")
        assert await world.registry.count(world.hub) == (1, 0)


async def test_a_report_that_comes_while_it_moves_is_not_lost(database_url: str) -> None:
    """Whoever read the twin before it decides again: what was acknowledged goes along."""
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await lived(world, device)
        await enroll(world, device, second.host)
        twins, here = Twins(world.database, world.clock, world.registry), world.hub
        known = await world.registry.device(here, "device-1")
        reported = asyncio.gather(
            *(twins.report(here, known, {f"n{number}": number}, None) for number in range(20)), return_exceptions=True
        )
        while True:
            with contextlib.suppress(RegistrationBusyError):  # it is asked again, as devices do
                await world.register(device)
                break
        done = [number for number, one in enumerate(await reported) if not isinstance(one, BaseException)]
        kept = (await told(world, second)).reported.values
        assert [number for number in done if kept.get(f"n{number}") != number] == []


async def test_a_device_that_another_put_on_record_is_not_taken_away(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, second = a_device(), await another_hub(world)
        await enroll(world, device, world.hub.host)
        await world.register(device)
        await world.registry.remove(world.hub, "device-1", None, actor="test")
        await world.registry.put(world.hub, "device-1", DeviceBody(), BY_HAND, None, actor="test")
        await enroll(world, device, second.host)
        with pytest.raises(DeviceHeldError):
            await world.register(device)
        assert await world.registry.has(world.hub.host, "device-1")
        assert not await world.registry.has(second.host, "device-1")


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
