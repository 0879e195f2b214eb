"""A verdict of a CONNECT counts for the request that follows it, unless something was written between."""

import pytest

from birthmark.dps.model import Claim
from birthmark.dps.rules.attestation import EnrollmentDisabledError
from birthmark.iothub.service.registry import UnknownDeviceError
from dps_world import DpsWorld, a_dps
from pki_builders import Holder, a_ca, a_device

pytestmark = pytest.mark.integration


async def test_a_device_that_is_taken_back_between_its_packets_does_not_register(database_url: str) -> None:
    async with a_dps(database_url) as world:
        maker = a_ca()
        await world.group("line", maker)
        for name, is_taken_back in (("pump-1", True), ("pump-2", False)):
            claim = claim_of(world, a_device(maker, name))
            verdict = await world.registrations.attest(claim)
            world.clock._monotonic += 0.01
            if is_taken_back:  # by an enrollment of its own in the way of the group's
                await world.enrollments.take_back(world.instance, name, "keyCompromise", actor="test")
                with pytest.raises(EnrollmentDisabledError):
                    await world.registrations.register(claim, verdict)
                with pytest.raises(UnknownDeviceError):
                    await world.registry.device(world.hub, name)
            else:
                assert (await world.registrations.register(claim, verdict)).device_id == name


async def test_a_verdict_is_not_made_anew_for_what_others_write(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(a_ca(), "pump-1")
        await world.individual("pump-1", device)
        world.clock._monotonic += 0.01
        verdict = await world.registrations.attest(claim_of(world, device))
        world.clock._monotonic += 0.01
        await world.enrollments.take_back(world.instance, "pump-2", "keyCompromise", actor="test")
        assert not world.enrollments.changed_since(world.instance.id_scope, ["pump-1"], verdict.at)
        assert world.enrollments.changed_since(world.instance.id_scope, ["PUMP-2"], verdict.at)


def claim_of(world: DpsWorld, device: Holder) -> Claim:
    return Claim(world.instance.id_scope, device.certificate.subject_cn or "", device.certificate, (), None)
