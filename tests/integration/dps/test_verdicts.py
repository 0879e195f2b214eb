"""A verdict of a CONNECT counts for the request that follows it, unless something was written between."""

import contextlib
from dataclasses import replace
from typing import Any, cast

import pytest

from birthmark.dps.domain_events import AuthorityChanged
from birthmark.dps.model import Claim
from birthmark.dps.rules.attestation import DeviceTakenBackError, EnrollmentDisabledError
from birthmark.dps.service.enrollments import Enrollments
from birthmark.errors import BirthmarkError
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.store import open_database
from support.azure.dps_world import DpsWorld, a_dps
from support.fakes import SeededEntropy
from support.pki.pki_builders import Holder, a_ca, a_device

pytestmark = pytest.mark.integration


async def test_a_device_that_is_taken_back_between_its_packets_does_not_register(database_url: str) -> None:
    async with a_dps(database_url) as world:
        maker = a_ca()
        await world.group("line", maker)
        for name, is_revoked_at_hub in (("pump-1", True), ("pump-2", False)):
            claim = claim_of(world, a_device(maker, name))
            verdict = await world.registrations.attester.attest(claim)
            world.clock._monotonic += 0.01
            if is_revoked_at_hub:  # by an enrollment of its own in the way of the group's
                await world.enrollments.revoke_device(world.instance, name, "keyCompromise", actor="test")
                with pytest.raises(EnrollmentDisabledError):
                    await world.registrations.register(claim, verdict)
                with pytest.raises(UnknownDeviceError):
                    await world.registry.device(world.hub, name)
            else:
                assert (await world.registrations.register(claim, verdict)).device_id == name


class Lost:
    """An inventory in which one name is revoked."""

    async def is_lost(self, name: str) -> bool:
        return name == "pump-1"

    async def check(self, leaf: object, chain: object) -> None:
        """No certificate is revoked."""


async def test_a_revoked_device_registers_by_no_enrollment_also_where_the_disabled_one_was_removed(
    database_url: str,
) -> None:
    async with a_dps(database_url) as world:
        maker = a_ca()
        await world.group("line", maker)
        world.registrations.attester._inventory = cast("Any", Lost())
        with pytest.raises(DeviceTakenBackError):
            await world.registrations.attester.attest(claim_of(world, a_device(maker, "pump-1")))
        await world.registrations.attester.attest(claim_of(world, a_device(maker, "pump-2")))
        await world.individual("pump-1", device := a_device(a_ca(), "pump-1"))
        with pytest.raises(DeviceTakenBackError):
            await world.registrations.attester.attest(claim_of(world, device))


async def test_a_verdict_is_not_made_anew_for_what_others_write(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(a_ca(), "pump-1")
        await world.individual("pump-1", device)
        world.clock._monotonic += 0.01
        verdict = await world.registrations.attester.attest(claim_of(world, device))
        await world.enrollments.revoke_device(world.instance, "pump-2", "keyCompromise", actor="test")
        assert world.registrations.attester.is_fresh(verdict)


def claim_of(world: DpsWorld, device: Holder) -> Claim:
    return Claim(world.instance.id_scope, device.certificate.subject_cn or "", device.certificate, (), None)


async def beside(world: DpsWorld, stack: contextlib.AsyncExitStack, url: str) -> DpsWorld:
    """Another worker on the same database, of which this one hears nothing."""
    database = await open_database(url, world.clock, worker="w2")
    stack.push_async_callback(database.close)
    enrollments = Enrollments(database, world.clock, SeededEntropy(), cast("Any", None))
    return replace(world, database=database, enrollments=enrollments)


async def test_a_device_that_another_worker_took_back_meanwhile_does_not_register(database_url: str) -> None:
    async with a_dps(database_url) as world, contextlib.AsyncExitStack() as stack:
        other, maker = await beside(world, stack, database_url), a_ca()
        await world.group("line", maker)
        claim = claim_of(world, a_device(maker, "pump-1"))
        verdict = await world.registrations.attester.attest(claim)
        await other.enrollments.revoke_device(world.instance, "pump-1", "keyCompromise", actor="test")
        with pytest.raises(EnrollmentDisabledError):
            await world.registrations.register(claim, verdict)
        with pytest.raises(UnknownDeviceError):
            await world.registry.device(world.hub, "pump-1")


async def test_a_device_whose_enrollment_another_worker_removed_meanwhile_does_not_register(database_url: str) -> None:
    async with a_dps(database_url) as world, contextlib.AsyncExitStack() as stack:
        other, device = await beside(world, stack, database_url), a_device(a_ca(), "pump-1")
        await world.individual("pump-1", device)
        claim = claim_of(world, device)
        verdict = await world.registrations.attester.attest(claim)
        await other.enrollments.delete(world.instance.id_scope, "pump-1", None, is_group=False, actor="test")
        with pytest.raises(BirthmarkError):
            await world.registrations.register(claim, verdict)
        assert await world.registrations.find(world.instance, "pump-1") is None


@pytest.mark.parametrize("what", ["group", "CA"])
async def test_who_registers_while_its_group_or_a_ca_changes_is_looked_at_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with a_dps(database_url) as world:
        maker, registrations, scope = a_ca(), world.registrations, world.instance.id_scope
        provision, attest, asked = registrations._hubs.provision, registrations.attester.attest, list[Claim]()
        await world.group("line", maker)

        async def late(*given: Any) -> Any:
            monkeypatch.setattr(registrations._hubs, "provision", provision)
            if what == "group":
                await world.enrollments.delete(scope, "line", None, is_group=True, actor="test")
            else:
                registrations.attester._hear([(1, AuthorityChanged(scope, "line"))], True)
            return await provision(*given)

        async def counted(claim: Claim) -> Any:
            asked.append(claim)
            return await attest(claim)

        monkeypatch.setattr(registrations._hubs, "provision", late)
        monkeypatch.setattr(registrations.attester, "attest", counted)
        claim = claim_of(world, a_device(maker, "pump-1"))
        with pytest.raises(BirthmarkError) if what == "group" else contextlib.nullcontext():
            await registrations.register(claim)
        assert asked == [claim, claim]
        assert (await registrations.find(world.instance, "pump-1") is None) == (what == "group")


async def test_a_device_registers_at_no_hub_that_is_removed_meanwhile(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_dps(database_url) as world:
        maker, provision, hubs = a_ca(), world.registrations._hubs.provision, world.registry._hubs
        await world.group("line", maker)

        async def late(*given: Any) -> Any:
            changes = await provision(*given)
            await hubs.delete(world.hub.name, actor="test")
            return changes

        monkeypatch.setattr(world.registrations._hubs, "provision", late)
        with pytest.raises(UnknownHubError):
            await world.registrations.register(claim_of(world, a_device(maker, "pump-1")))
        made = await hubs.create(world.hub.name, world.hub.host, actor="test")
        assert await world.registry.devices(made) == []
