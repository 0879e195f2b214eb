"""What was read may have changed when it is written: each decision is made again, or refused; nothing is lost."""

from datetime import timedelta

import msgspec
import pytest

from birthmark.dps.service.ca_certificates import AuthorityExistsError, UnknownAuthorityError
from birthmark.dps.service.enrollments import EnrollmentChangedError, EnrollmentExistsError, EnrollmentNotFoundError
from birthmark.dps.service.registrations import RegistrationNotFoundError
from birthmark.iothub.service.registry import EtagMismatchError, UnknownDeviceError
from birthmark.iothub.wire import DeviceBody
from birthmark.pki.ca_possession_proof import PossessionCodeMismatchError, prove_possession
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer
from support.azure.dps_world import BY_HAND, DpsWorld, a_dps, an_individual
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device, a_key
from support.store.between import before_the_next_commit

pytestmark = pytest.mark.integration


async def a_proof(world: DpsWorld) -> Certificate:
    """Put a CA on record, not verified; return the certificate that proves its key by the code given out."""
    scope, ca = world.instance.id_scope, a_ca()
    await world.authorities.add(scope, "ca", ca.certificate, is_verified=False, actor="test")
    coded = await world.authorities.new_code(scope, "ca", actor="test")
    issuer, key, lifetime = LeafIssuer(ca.certificate, ca.private_key), a_key().public_key(), timedelta(days=1)
    return prove_possession(coded.verification_code or "", issuer, key, serial=7, now=NOON, lifetime=lifetime)


async def test_a_ca_that_was_removed_while_it_was_verified_stays_removed(database_url: str) -> None:
    async with a_dps(database_url) as world:
        scope, proof = world.instance.id_scope, await a_proof(world)
        before_the_next_commit(world.database, lambda: world.authorities.remove(scope, "ca", actor="another"))
        with pytest.raises(UnknownAuthorityError):
            await world.authorities.verify(scope, "ca", proof, actor="test")
        assert not await world.authorities.all(scope)


async def test_a_code_that_was_replaced_while_its_proof_was_checked_proves_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        scope, proof = world.instance.id_scope, await a_proof(world)
        before_the_next_commit(world.database, lambda: world.authorities.new_code(scope, "ca", actor="another"))
        with pytest.raises(PossessionCodeMismatchError):
            await world.authorities.verify(scope, "ca", proof, actor="test")
        assert not (await world.authorities.get(scope, "ca")).is_verified


async def test_of_two_cas_added_under_one_name_the_first_stays(database_url: str) -> None:
    async with a_dps(database_url) as world:
        scope, first, second = world.instance.id_scope, a_ca("First"), a_ca("Second")
        before_the_next_commit(
            world.database,
            lambda: world.authorities.add(scope, "ca", first.certificate, is_verified=True, actor="another"),
        )
        with pytest.raises(AuthorityExistsError):
            await world.authorities.add(scope, "ca", second.certificate, is_verified=True, actor="test")
        assert (await world.authorities.get(scope, "ca")).certificate == first.certificate


async def test_of_two_who_create_one_enrollment_exactly_one_did(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        ours, theirs = an_individual("device-1", a_device(ca)), an_individual("device-1", a_device(ca))
        before_the_next_commit(
            world.database, lambda: world.enrollments.create(world.instance, theirs, actor="another")
        )
        with pytest.raises(EnrollmentExistsError):
            await world.enrollments.create(world.instance, ours, actor="test")
        found = await world.enrollments.document(world.instance.id_scope, "device-1", is_group=False)
        assert found.attestation.x509 is not None
        assert found.attestation.x509.client_certificates is not None
        kept = found.attestation.x509.client_certificates.primary
        given = theirs.attestation.x509.client_certificates.primary  # type: ignore[union-attr]  # made above
        assert kept is not None
        assert given is not None
        assert kept.certificate == given.certificate


async def test_an_upsert_without_an_etag_that_meets_another_comes_after_it(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca()
        ours, theirs = an_individual("device-1", a_device(ca)), an_individual("device-1", a_device(ca))
        before_the_next_commit(
            world.database, lambda: world.enrollments.put(world.instance, theirs, None, actor="another")
        )
        scope, made = world.instance.id_scope, await world.enrollments.put(world.instance, ours, None, actor="test")
        assert (await world.enrollments.document(scope, "device-1", is_group=False)).etag == made.etag


async def test_a_delete_by_etag_spares_what_was_changed_meanwhile(database_url: str) -> None:
    async with a_dps(database_url) as world:
        scope, wanted = world.instance.id_scope, an_individual("device-1", a_device(a_ca()))
        made = await world.enrollments.put(world.instance, wanted, None, actor="test")
        off = msgspec.structs.replace(wanted, provisioning_status="disabled")
        before_the_next_commit(
            world.database, lambda: world.enrollments.put(world.instance, off, None, actor="another")
        )
        with pytest.raises(EnrollmentChangedError):
            await world.enrollments.delete(scope, "device-1", made.etag, is_group=False, actor="test")
        assert not (await world.enrollments.get(scope, "device-1", is_group=False)).is_enabled


async def test_what_another_deleted_first_is_not_deleted_twice(database_url: str) -> None:
    async with a_dps(database_url) as world:
        scope = world.instance.id_scope
        await world.individual("device-1", a_device(a_ca()))
        before_the_next_commit(
            world.database,
            lambda: world.enrollments.delete(scope, "device-1", None, is_group=False, actor="another"),
        )
        with pytest.raises(EnrollmentNotFoundError):
            await world.enrollments.delete(scope, "device-1", None, is_group=False, actor="test")


async def test_two_hubs_linked_at_once_are_both_linked(database_url: str) -> None:
    async with a_dps(database_url) as world:
        before_the_next_commit(world.database, lambda: world.instances.link("main", "one.example", actor="another"))
        await world.instances.link("main", "two.example", actor="test")
        await world.instances.load()
        assert set(world.instances.by_name("main").hubs) == {"hub.example", "one.example", "two.example"}


async def test_a_name_that_was_registered_anew_while_it_was_let_go_is_let_go_as_it_is_then(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(a_ca())
        await world.individual("device-1", device)
        await world.register(device)
        before_the_next_commit(world.database, lambda: world.register(device))
        await world.registrations.release(world.instance, "device-1", actor="test")
        with pytest.raises(RegistrationNotFoundError):
            await world.registrations.get(world.instance, "device-1")


async def test_a_device_made_by_hand_meanwhile_is_not_removed_with_a_name_that_is_let_go(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(a_ca())
        await world.individual("device-1", device)
        await world.register(device)

        async def made_by_hand() -> None:
            await world.registry.put(world.hub, "device-1", DeviceBody("device-1"), BY_HAND, "*", actor="another")

        before_the_next_commit(world.database, made_by_hand)
        await world.registrations.release(world.instance, "device-1", actor="test")
        assert (await world.registry.device(world.hub, "device-1")).authentication.type is BY_HAND.type


async def test_a_device_removed_while_it_registers_again_is_made_again(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = a_device(a_ca())
        await world.individual("device-1", device)
        await world.register(device)
        before_the_next_commit(
            world.database, lambda: world.registry.remove(world.hub, "device-1", None, actor="another")
        )
        await world.register(device)
        assert (await world.registry.device(world.hub, "device-1")).is_enabled


async def test_a_hub_device_changed_meanwhile_is_not_deleted_by_the_etag_that_was_read(database_url: str) -> None:
    async with a_dps(database_url) as world:
        made = await world.registry.put(world.hub, "one", DeviceBody("one"), BY_HAND, None, actor="test")

        async def switched_off() -> None:
            off = DeviceBody("one", status="disabled")
            await world.registry.put(world.hub, "one", off, BY_HAND, "*", actor="another")

        before_the_next_commit(world.database, switched_off)
        with pytest.raises(EtagMismatchError):
            await world.registry.remove(world.hub, "one", made.etag, actor="test")
        assert not (await world.registry.device(world.hub, "one")).is_enabled
        await world.registry.remove(world.hub, "one", "*", actor="test")
        with pytest.raises(UnknownDeviceError):
            await world.registry.device(world.hub, "one")
