"""Whose name it is: registrations pinned to their enrollment, hub identities to their maker, on each real engine."""

import asyncio
from datetime import timedelta

import pytest

from birthmark.dps.model import REASSIGNED, Claim, Instance
from birthmark.dps.rules.registration import RegistrationPinnedError
from birthmark.iothub.model import AuthenticationType
from birthmark.iothub.rules.provisioned_identity_ownership import DeviceHeldError
from birthmark.iothub.wire import DeviceBody
from support.azure.dps_world import BY_HAND, DpsWorld, a_dps, an_individual
from support.pki.pki_builders import Holder, a_ca, a_device

pytestmark = pytest.mark.integration
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


async def another_service(world: DpsWorld) -> Instance:
    """Make a second provisioning service of the same hub."""
    await world.instances.create("second", "second.example", actor="test")
    return await world.instances.link("second", world.hub.host, actor="test")


async def registered_at(world: DpsWorld, instance: Instance, device: Holder) -> str:
    """Register with a service, and return what it says became of the device."""
    claim = Claim(instance.id_scope, "device-1", device.certificate, (), None)
    return (await world.registrations.register(claim)).substatus


async def thumbprint_at_hub(world: DpsWorld, name: str) -> bytes | None:
    return (await world.registry.device(world.hub, name)).authentication.primary_thumbprint


async def test_a_device_of_another_group_cannot_take_a_registered_name(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ours, theirs = a_ca("Ours"), a_ca("Theirs")
        await world.group("ours", ours)
        await world.group("theirs", theirs)
        device = a_device(ours)
        await world.register(device)
        with pytest.raises(RegistrationPinnedError):
            await world.register(a_device(theirs))
        assert await thumbprint_at_hub(world, "device-1") == device.certificate.thumbprint
        await world.register(a_device(ours))  # the same group: a renewed certificate


async def test_a_group_made_again_by_the_same_name_cannot_take_over_what_the_removed_one_registered(
    database_url: str,
) -> None:
    async with a_dps(database_url) as world:
        ours, theirs = a_ca("Ours"), a_ca("Theirs")
        device = a_device(ours)
        await world.group("fleet", ours)
        await world.register(device)
        await world.enrollments.delete(world.instance.id_scope, "fleet", None, is_group=True, actor="test")
        world.clock.move(timedelta(seconds=1))
        await world.group("fleet", theirs)
        with pytest.raises(RegistrationPinnedError) as refusal:
            await world.register(a_device(theirs))
        assert refusal.value.facts["holder"] == "the group fleet before it was removed"
        assert await thumbprint_at_hub(world, "device-1") == device.certificate.thumbprint
        await world.registrations.release(world.instance, "device-1", actor="test")
        await world.register(a_device(theirs))


async def test_a_device_registers_on_by_its_certificate_when_its_group_is_made_again(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ours = a_ca("Ours")
        device = a_device(ours)
        await world.group("fleet", ours)
        await world.register(device)
        await world.enrollments.delete(world.instance.id_scope, "fleet", None, is_group=True, actor="test")
        world.clock.move(timedelta(seconds=1))
        await world.group("fleet", ours)
        await world.register(device)
        await world.register(a_device(ours))  # it belongs to the new group from then on: a renewed certificate


async def test_a_group_whose_ca_the_operator_changes_keeps_its_registrations(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ours, next_ca = a_ca("Ours"), a_ca("Next")
        await world.group("fleet", ours)
        await world.register(a_device(ours))
        await world.group("fleet", next_ca)
        await world.register(a_device(next_ca))


async def test_a_key_group_cannot_take_a_registered_name_either(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("ours", KEY)
        await world.key_group("theirs", OTHER_KEY)
        await world.register_by_key("device-1", KEY)
        with pytest.raises(RegistrationPinnedError):
            await world.register_by_key("device-1", OTHER_KEY)
        with pytest.raises(RegistrationPinnedError):
            await world.register_by_key("DEVICE-1", KEY)


async def test_a_device_made_by_hand_is_not_taken_over_by_a_group(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.registry.put(world.hub, "device-1", DeviceBody("device-1"), BY_HAND, None, actor="test")
        ca = a_ca()
        await world.group("fleet", ca)
        with pytest.raises(DeviceHeldError) as refusal:
            await world.register(a_device(ca))
        assert (await world.registry.device(world.hub, "device-1")).authentication.type is AuthenticationType.SAS
        assert refusal.value.explain_fix().endswith("`birthmark hub device rm device-1 --hub main --yes`.")
        await world.registry.remove(world.hub, "device-1", None, actor="test")
        await world.register(a_device(ca))


async def test_an_individual_enrollment_takes_over_a_device_made_by_hand_with_its_twin(database_url: str) -> None:
    async with a_dps(database_url) as world:
        made = await world.registry.put(world.hub, "device-1", DeviceBody(), BY_HAND, None, actor="test")
        await world.iothub.twins.report(world.hub, made, {"kept": True}, None)
        device = a_device()
        await world.individual("device-1", device)
        assert (await world.register(device)).substatus == REASSIGNED
        proof = (await world.registry.device(world.hub, "device-1")).authentication
        assert {proof.primary_thumbprint, proof.secondary_thumbprint} == {device.certificate.thumbprint}
        assert (await world.iothub.twins.get(world.hub, "device-1")).reported.values == {"kept": True}
        assert (await world.register(device)).substatus == REASSIGNED


async def test_a_device_made_by_hand_that_is_disabled_stays_so(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.registry.put(world.hub, "device-1", DeviceBody(status="disabled"), BY_HAND, None, actor="test")
        await world.individual("device-1", device := a_device())
        await world.register(device)
        assert not (await world.registry.device(world.hub, "device-1")).is_enabled


async def test_a_device_registers_with_two_services_of_one_hub_in_turn(database_url: str) -> None:
    async with a_dps(database_url) as world:
        first, second = world.instance, await another_service(world)
        device = a_device()
        for instance in (first, second):
            await world.enrollments.put(instance, an_individual("device-1", device), None, actor="test")
        told = [await registered_at(world, instance, device) for instance in (first, second, first, second)]
        assert told == ["initialAssignment", REASSIGNED, "initialAssignment", REASSIGNED]


async def test_a_group_of_a_second_service_takes_over_the_same_device_alone(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        await world.group("fleet", ca)
        await world.register(device := a_device(ca))
        world.instance = await another_service(world)
        await world.group("fleet", ca)
        with pytest.raises(DeviceHeldError):
            await world.register(a_device(ca))
        assert (await world.register(device)).substatus == REASSIGNED


async def test_two_individual_enrollments_cannot_share_a_device(database_url: str) -> None:
    async with a_dps(database_url) as world:
        first, second = a_device(common_name="first"), a_device(common_name="second")
        await world.individual("first", first, device_id="truck")
        await world.individual("second", second, device_id="truck")
        await world.register(first)
        with pytest.raises(DeviceHeldError):
            await world.register(second)


async def test_an_individual_enrollment_takes_over_what_a_group_registered(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        await world.group("fleet", ca)
        await world.register(a_device(ca))
        chosen = a_device()
        await world.individual("device-1", chosen)
        await world.register(chosen)
        assert await thumbprint_at_hub(world, "device-1") == chosen.certificate.thumbprint


async def test_when_the_individual_enrollment_is_removed_a_group_may_have_the_name(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        device = a_device(ca)
        await world.group("fleet", ca)
        await world.individual("device-1", device)
        await world.register(device)
        await world.enrollments.delete(world.instance.id_scope, "device-1", None, is_group=False, actor="test")
        assert (await world.register(a_device(ca))).group_id == "fleet"


async def test_a_released_name_is_free_for_the_next_enrollment_with_its_device(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ours, theirs = a_ca("Ours"), a_ca("Theirs")
        await world.group("ours", ours)
        await world.group("theirs", theirs)
        await world.register(a_device(ours))
        released = await world.registrations.release(world.instance, "DEVICE-1", actor="test")
        assert released.device_id == "device-1"
        assert await world.registry.count(world.hub) == (0, 0)
        assert (await world.register(a_device(theirs))).group_id == "theirs"


async def test_of_two_groups_that_register_a_new_name_at_once_exactly_one_wins(database_url: str) -> None:
    async with a_dps(database_url) as world:
        cas = [a_ca(f"CA {number}") for number in range(4)]
        for number, ca in enumerate(cas):
            await world.group(f"group-{number}", ca)
        claims = [world.register(a_device(ca)) for ca in cas]
        outcomes = await asyncio.gather(*claims, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert [type(outcome) for outcome in refused] == [RegistrationPinnedError] * 3


async def test_one_device_that_registers_twice_at_once_is_registered(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        await world.group("fleet", ca)
        device = a_device(ca)
        both = await asyncio.gather(world.register(device), world.register(device))
        assert {one.device_id for one in both} == {"device-1"}


async def test_a_certificate_in_other_letters_cannot_take_a_registered_name(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        await world.group("fleet", ca)
        await world.register(a_device(ca, "gateway-x"))
        with pytest.raises(RegistrationPinnedError):
            await world.register(a_device(ca, "GATEWAY-X"), "gateway-x")


async def test_switching_a_device_off_and_on_at_the_hub_does_not_cut_it_off_from_registering(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        await world.group("fleet", ca)
        await world.register(a_device(ca))
        present = await world.registry.device(world.hub, "device-1")
        for status in ("disabled", "enabled"):
            await world.registry.put(
                world.hub, "device-1", DeviceBody("device-1", status=status), present.authentication, "*", actor="test"
            )
        await world.register(a_device(ca))


async def test_cas_on_record_and_cas_that_groups_carry_are_found_by_their_subject(database_url: str) -> None:
    async with a_dps(database_url) as world:
        carried, other = a_ca("Carried"), a_ca("Other")
        await world.group("fleet", carried)
        await world.group("others", other)
        scope = world.instance.id_scope
        assert await world.authorities.named(scope, carried.certificate.subject_der) == [carried.certificate]
        await world.authorities.remove(scope, carried.certificate.thumbprint.hex(), actor="test")
        assert await world.authorities.named(scope, carried.certificate.subject_der) == [carried.certificate]
        assert await world.authorities.named(scope, a_ca("Nobody").certificate.subject_der) == []
