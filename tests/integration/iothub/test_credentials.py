"""Certificates by the hub, at the moments between reading, signing and writing."""

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.cloud_device_issuance import BURST, EVERY_S, IssuingThrottledError
from birthmark.ca.rules.issuance_eligibility import NameHeldError
from birthmark.dps.enrollment_document import (
    AttestationMechanism,
    CertificateEntry,
    CertificatePair,
    EnrollmentDocument,
    X509Attestation,
)
from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, Hub
from birthmark.iothub.rules.certificate_renewal import (
    CredentialBusyError,
    CredentialReplacedError,
    NoCredentialPolicyError,
)
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.pki.csr import parse_csr
from birthmark.rate_limits import RateLimits
from support.azure.dps_world import an_individual
from support.azure.issuing_world import an_issuing_world, leaf_of, with_policy
from support.pki.pki_builders import a_csr, a_device, a_key

pytestmark = pytest.mark.integration


async def test_both_certificates_count_until_the_new_one_is_used(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        first = await world.issued(a_key())
        await world.iothub.credentials.used(world.hub, await world.device(), first)
        assert await world.slots() == (first.thumbprint, first.thumbprint)
        second = await world.issue(first, a_key())
        assert await world.slots() == (first.thumbprint, second.thumbprint)
        await world.iothub.credentials.used(world.hub, await world.device(), second)
        assert await world.slots() == (second.thumbprint, second.thumbprint)
        found = await world.authority.find(second.thumbprint)
        assert found is not None
        assert found.parent == first.thumbprint
        assert found.registered_at is not None


async def test_one_request_of_a_connection_is_under_way_at_a_time(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        accepted = await world.accept(leaf, a_key())
        with pytest.raises(CredentialBusyError) as busy:
            await world.accept(leaf, a_key(), rid="8")
        assert busy.value.request_id == "7"
        await world.iothub.credentials.finish(accepted)
        await world.accept(leaf, a_key(), rid="8")


async def test_who_connects_again_takes_the_place_of_its_earlier_request(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        world.issuer.hold()
        earlier = asyncio.ensure_future(world.iothub.credentials.finish(await world.accept(leaf, a_key())))
        await world.issuer.asked.wait()
        later = await world.accept(leaf, a_key(), session="after the kill", rid="8")
        world.issuer.go.set()
        with pytest.raises(CredentialReplacedError):
            await earlier
        fresh = leaf_of(await world.iothub.credentials.finish(later))
        assert (await world.slots())[1] == fresh.thumbprint


async def test_what_is_issued_while_the_next_request_looks_at_the_device_is_its_answer(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf, key, credentials = await world.issued(a_key()), a_key(), world.iothub.credentials
        world.issuer.hold()
        earlier = asyncio.ensure_future(credentials.finish(await world.accept(leaf, key)))
        await world.issuer.asked.wait()
        looked = credentials._get_current

        async def look(hub: Hub, device: Device) -> Device:
            found = await looked(hub, device)
            world.issuer.go.set()
            await earlier
            return found

        monkeypatch.setattr(credentials, "_get_current", look)
        later = await world.accept(leaf, key, session="after the cut", rid="8")
        assert await credentials.finish(later) == await earlier


async def test_a_request_that_is_over_holds_up_nobody(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        await world.accept(leaf, a_key())
        world.dps.clock.move(timedelta(seconds=61))
        await world.accept(leaf, a_key(), rid="8")


async def test_what_an_operator_changes_while_it_is_signed_is_not_lost(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        world.issuer.hold()
        waiting = asyncio.ensure_future(world.iothub.credentials.finish(await world.accept(leaf, a_key())))
        await world.issuer.asked.wait()
        await world.iothub.registry.set_enabled(world.hub, "device-1", is_enabled=False, actor="test")
        world.issuer.go.set()
        fresh = leaf_of(await waiting)
        device = await world.device()
        assert not device.is_enabled
        assert device.authentication.secondary_thumbprint == fresh.thumbprint


async def test_a_device_that_an_operator_took_over_while_it_is_signed_stays_the_operators(
    database_url: str, tmp_path: Path
) -> None:
    wanted = DeviceAuthentication(AuthenticationType.SELF_SIGNED, b"o" * 32)
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        world.issuer.hold()
        waiting = asyncio.ensure_future(world.iothub.credentials.finish(await world.accept(leaf, a_key())))
        await world.issuer.asked.wait()
        await world.iothub.registry.put(world.hub, "device-1", wire.DeviceBody("device-1"), wanted, "*", actor="test")
        world.issuer.go.set()
        with pytest.raises(NoCredentialPolicyError):
            await waiting
        assert await world.slots() == (b"o" * 32, None)


async def test_a_device_made_anew_by_the_same_name_gets_nothing_of_the_one_before(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        before = await world.device()
        world.issuer.hold()
        waiting = asyncio.ensure_future(world.iothub.credentials.finish(await world.accept(leaf, a_key())))
        await world.issuer.asked.wait()
        await world.iothub.registry.remove(world.hub, "device-1", None, actor="test")
        world.dps.clock.move(timedelta(seconds=1))
        world.issuer.go.set()
        with pytest.raises(UnknownDeviceError):
            await waiting
        await world.register(a_key())
        with pytest.raises(UnknownDeviceError):
            await world.accept(leaf, a_key(), device=before)


async def test_a_policy_that_ends_while_it_is_signed_issues_nothing(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        slots = await world.slots()
        world.issuer.hold()
        waiting = asyncio.ensure_future(world.iothub.credentials.finish(await world.accept(leaf, a_key())))
        await world.issuer.asked.wait()
        document = await world.dps.enrollments.document(world.dps.instance.id_scope, "device-1", is_group=False)
        await world.dps.enrollments.put(world.dps.instance, with_policy(document, None), None, actor="test")
        world.issuer.go.set()
        with pytest.raises(NoCredentialPolicyError):
            await waiting
        assert await world.slots() == slots


async def test_a_request_that_fails_is_over_and_what_was_issued_before_it_counts_on(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        await world.iothub.credentials.used(world.hub, await world.device(), leaf)
        unused = await world.issue(leaf, a_key())
        key = a_key()
        another = Principal(PrincipalKind.EST_USER, "of-device-2", device_id="device-2")
        await world.authority.issue(parse_csr(a_csr("device-2", key=key)), another)
        accepted = await world.accept(leaf, key)
        with pytest.raises(Exception, match="belongs to another device"):
            await world.iothub.credentials.finish(accepted)
        assert await world.slots() == (leaf.thumbprint, unused.thumbprint)
        await world.iothub.credentials.used(world.hub, await world.device(), unused)
        assert await world.slots() == (unused.thumbprint, unused.thumbprint)


async def test_the_next_request_takes_back_what_was_never_used(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        await world.iothub.credentials.used(world.hub, await world.device(), leaf)
        unused = await world.issue(leaf, a_key())
        fresh = await world.issue(leaf, a_key())
        assert await world.authority.revocations.is_revoked(unused.thumbprint)
        assert not await world.authority.revocations.is_revoked(leaf.thumbprint)
        assert await world.slots() == (leaf.thumbprint, fresh.thumbprint)


async def test_what_a_connection_shows_is_never_taken_back(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())  # whose first connection could not be noted
        fresh = await world.issue(leaf, a_key())
        assert not await world.authority.revocations.is_revoked(leaf.thumbprint)
        assert await world.slots() == (leaf.thumbprint, fresh.thumbprint)


async def test_the_same_key_is_given_the_same_certificate_for_an_hour(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf, key = await world.issued(a_key()), a_key()
        await world.iothub.credentials.used(world.hub, await world.device(), leaf)
        first = await world.issue(leaf, key)
        world.dps.clock.move(timedelta(seconds=3500))
        assert await world.issue(leaf, key) == first
        world.dps.clock.move(timedelta(seconds=3700))
        assert await world.issue(leaf, key) != first


async def test_a_registration_by_a_new_key_keeps_the_certificate_in_use(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        await world.iothub.credentials.used(world.hub, await world.device(), leaf)
        fresh = await world.issued(a_key())
        assert await world.slots() == (leaf.thumbprint, fresh.thumbprint)


async def test_of_two_enrolled_certificates_the_one_that_registers_stays(database_url: str, tmp_path: Path) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        other = a_device(common_name="device-1")
        pair = CertificatePair(
            CertificateEntry(other.certificate.pem()), CertificateEntry(world.born.certificate.pem())
        )
        attestation = AttestationMechanism("x509", X509Attestation(client_certificates=pair))
        document = EnrollmentDocument(attestation, registration_id="device-1")
        await world.dps.enrollments.put(world.dps.instance, with_policy(document), None, actor="test")
        await world.register(None)
        assert await world.slots() == (other.certificate.thumbprint, world.born.certificate.thumbprint)
        fresh = await world.issued(a_key())
        assert await world.slots() == (world.born.certificate.thumbprint, fresh.thumbprint)


async def test_a_device_that_moves_to_another_hub_takes_its_certificate_along(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        leaf = await world.issued(a_key())
        await world.iothub.credentials.used(world.hub, await world.device(), leaf)
        other = await world.iothub.hubs.create("other", "other.example", actor="test")
        await world.dps.instances.link(world.dps.instance.name, other.host, actor="test")
        scope = world.dps.instance.id_scope
        document = await world.dps.enrollments.document(scope, "device-1", is_group=False)
        moved = msgspec.structs.replace(document, iot_hubs=[other.host], allocation_policy="static")
        await world.dps.enrollments.put(world.dps.instance, moved, None, actor="test")
        assert (await world.register(None)).hub == other.host
        there = (await world.iothub.registry.device(other, "device-1")).authentication
        assert (there.primary_thumbprint, there.secondary_thumbprint) == (leaf.thumbprint, leaf.thumbprint)


async def test_a_registration_after_the_end_of_what_was_issued_begins_by_the_proof_again(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        await world.issued(a_key())
        world.dps.clock.move(timedelta(days=2))
        assert (await world.register(None)).issued_chain is None
        assert await world.slots() == (world.born.certificate.thumbprint, world.born.certificate.thumbprint)


async def test_a_device_that_asks_again_and_again_waits(database_url: str, tmp_path: Path) -> None:
    limits = RateLimits(burst=BURST, per_s=1 / EVERY_S)
    async with an_issuing_world(tmp_path, database_url, limits.has_room) as world:
        leaf = await world.issued(a_key())
        for _ in range(BURST - 1):
            await world.issue(leaf, a_key())
        with pytest.raises(IssuingThrottledError):
            await world.issue(leaf, a_key())
        with pytest.raises(IssuingThrottledError):
            await world.register(a_key())
        world.dps.clock.move(timedelta(seconds=EVERY_S))
        await world.issue(leaf, a_key())


async def test_a_name_that_somebody_else_has_certificates_of_is_not_given_away(
    database_url: str, tmp_path: Path
) -> None:
    by_est = Principal(PrincipalKind.EST_USER, "of-device-1", device_id="device-1")
    async with an_issuing_world(tmp_path, database_url) as world:
        await world.authority.issue(parse_csr(a_csr("device-1", key=a_key())), by_est)
        with pytest.raises(NameHeldError):
            await world.register(a_key())


async def test_a_device_enrolled_anew_without_a_policy_is_what_its_enrollment_says(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        await world.issued(a_key())
        document = msgspec.structs.replace(an_individual("device-1", world.born))
        await world.dps.enrollments.put(world.dps.instance, document, None, actor="test")
        await world.register(None)
        assert await world.slots() == (world.born.certificate.thumbprint, world.born.certificate.thumbprint)
