"""Registering by TPM, as a device of any maker does: the challenge, the answer, the key for the hub."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from birthmark.auth.sas import SasSignatureError, render_sas
from birthmark.dps.enrollment_document import AttestationMechanism, EnrollmentDocument
from birthmark.dps.model import Claim, Registration, TpmKeys
from birthmark.dps.rules.attestation import EnrollmentDisabledError, NoProofError
from birthmark.dps.rules.tpm_attestation import (
    CHALLENGE_S,
    MAX_ROOTS,
    MAX_ROOTS_OF_ONE,
    TpmMismatchError,
    TpmNotEnrolledError,
)
from birthmark.dps.service.attester import BURST, RegistrationThrottledError
from birthmark.dps.wire import TpmAttestation
from birthmark.errors import BirthmarkError
from birthmark.pki.tpm_public_key import TpmPublic
from support.azure.dps_world import DpsWorld, a_dps
from support.chips.tpm_vectors import RSA_SRK
from support.chips.tpms import SoftwareTpm, a_tpm, public
from support.fakes import NOON

pytestmark = pytest.mark.integration
NAME = "dev-1"


async def enrolled(world: DpsWorld, keys: TpmKeys, *, with_root: bool = False, status: str = "enabled") -> None:
    root = keys.storage_root.base64 if with_root and keys.storage_root else None
    attestation = AttestationMechanism("tpm", tpm=TpmAttestation(keys.endorsement.base64, root))
    document = EnrollmentDocument(attestation=attestation, registration_id=NAME, provisioning_status=status)
    await world.enrollments.put(world.instance, document, None, actor="test")


def claim_of(world: DpsWorld, keys: TpmKeys | None, token: str | None = None, address: str = "") -> Claim:
    return Claim(world.instance.id_scope, NAME, None, (), token, keys, address)


async def challenge(world: DpsWorld, keys: TpmKeys, address: str = "") -> bytes:
    found = await world.registrations.attester.challenge(claim_of(world, keys, address=address))
    assert found is not None
    return found


def answer(world: DpsWorld, tpm: SoftwareTpm, sealed: bytes) -> Claim:
    """Sign as clients do, and send the token alone."""
    resource = f"{world.instance.id_scope}/registrations/{NAME}"
    token = render_sas(
        resource, lambda data: tpm.device.sign_with(sealed, data), NOON + timedelta(hours=1), "registration"
    )
    return claim_of(world, None, token)


async def registered(world: DpsWorld, tpm: SoftwareTpm) -> Registration:
    return await world.registrations.register(answer(world, tpm, await challenge(world, tpm.keys)))


async def test_a_tpm_on_record_registers_and_alone_has_the_key_of_its_device(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm, a_tpm() as another:
            await enrolled(world, tpm.keys)
            made = await registered(world, tpm)
            at_hub = (await world.registry.device(world.hub, NAME)).authentication
            assert made.authentication_key is not None
            assert at_hub.primary_key is not None
            assert tpm.device.sign_with(made.authentication_key, b"x") == _hmac(at_hub.primary_key)
            with pytest.raises(BirthmarkError):
                another.device.sign_with(made.authentication_key, b"x")
            asked = answer(world, tpm, await challenge(world, tpm.keys))
            assert (await world.registrations.operation(asked, made.operation_id)) == made


async def test_each_registration_brings_a_new_key(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys, with_root=True)
            first = await registered(world, tpm)
            key = (await world.registry.device(world.hub, NAME)).authentication.primary_key
            second = await registered(world, tpm)
            assert first.authentication_key != second.authentication_key
            assert (await world.registry.device(world.hub, NAME)).authentication.primary_key != key


async def test_a_stranger_is_challenged_for_nothing_and_leaves_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm, a_tpm() as strange:
            with pytest.raises(TpmNotEnrolledError):
                await challenge(world, strange.keys)
            await enrolled(world, tpm.keys)
            with pytest.raises(TpmMismatchError) as refused:
                await challenge(world, strange.keys)
            assert refused.value.what == "endorsement key"
            assert await _roots(world) == []


async def test_who_claims_the_endorsement_key_of_another_can_answer_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm, a_tpm() as thief:
            await enrolled(world, tpm.keys)
            claimed = replace(thief.keys, endorsement=tpm.keys.endorsement)
            sealed = await challenge(world, claimed)
            with pytest.raises(BirthmarkError):
                answer(world, thief, sealed)
            await registered(world, tpm)  # and the device itself is not kept from registering
            with pytest.raises(TpmMismatchError) as refused:
                await challenge(world, claimed)
            assert refused.value.what == "storage root key"


async def test_the_operator_lets_a_cleared_tpm_in_again(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys)
            await registered(world, tpm)
            cleared = replace(tpm.keys, storage_root=public(RSA_SRK))
            with pytest.raises(TpmMismatchError):
                await challenge(world, cleared)
            await enrolled(world, cleared, with_root=True)
            await challenge(world, cleared)


async def test_root_keys_that_come_and_never_answer_are_few(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys)
            for n in range(BURST):
                await challenge(world, replace(tpm.keys, storage_root=_another(n)))
            assert len(await _roots(world)) == MAX_ROOTS_OF_ONE
            with pytest.raises(RegistrationThrottledError):
                await challenge(world, replace(tpm.keys, storage_root=_another(BURST)))
            await registered_after(world, tpm)
            assert await _roots(world) == []


async def test_who_sends_the_public_keys_of_a_tpm_does_not_keep_it_out(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys)
            others = [replace(tpm.keys, storage_root=_another(n)) for n in range(BURST)]
            for keys in others:
                await challenge(world, keys, "192.0.2.66")
            with pytest.raises(RegistrationThrottledError):
                await challenge(world, replace(tpm.keys, storage_root=_another(BURST)), "192.0.2.66")
            sealed = await challenge(world, tpm.keys, "192.0.2.1")
            for n in range(2 * MAX_ROOTS):  # while the TPM computes, from everywhere
                await challenge(world, replace(tpm.keys, storage_root=_another(n)), f"198.51.100.{n % 40}")
            assert len(await _roots(world)) <= MAX_ROOTS
            assert (await world.registrations.register(answer(world, tpm, sealed))).device_id == NAME


async def registered_after(world: DpsWorld, tpm: SoftwareTpm) -> None:
    world.clock.move(timedelta(seconds=10))
    await registered(world, tpm)


async def test_root_keys_that_come_at_the_same_moment_are_all_remembered(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys)
            claims = [replace(tpm.keys, storage_root=_another(n)) for n in range(3)]
            await asyncio.gather(*(challenge(world, keys) for keys in claims))
            assert len(await _roots(world)) == len(claims)


async def test_a_challenge_ends(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys, with_root=True)
            given = answer(world, tpm, await challenge(world, tpm.keys))
            world.clock.move(timedelta(seconds=CHALLENGE_S - 1))
            await world.registrations.register(given)
            world.clock.move(timedelta(seconds=CHALLENGE_S + 1))
            with pytest.raises(SasSignatureError):
                await world.registrations.register(given)


async def test_a_disabled_tpm_is_not_challenged(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys, status="disabled")
            with pytest.raises(EnrollmentDisabledError):
                await challenge(world, tpm.keys)


async def test_who_shows_nothing_does_not_register_by_a_tpms_name(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys)
            with pytest.raises(NoProofError):
                await world.registrations.register(claim_of(world, None))
            with pytest.raises(NoProofError):
                await world.registrations.attester.challenge(claim_of(world, replace(tpm.keys, storage_root=None)))


async def test_an_enrollment_that_is_removed_takes_what_came_with_it(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            await enrolled(world, tpm.keys)
            await challenge(world, tpm.keys)
            await world.enrollments.delete(world.instance.id_scope, NAME, None, is_group=False, actor="test")
            assert await _roots(world) == []


def _hmac(key: bytes) -> bytes:
    import hashlib
    import hmac

    return hmac.digest(key, b"x", hashlib.sha256)


def _another(n: int) -> TpmPublic:
    """Return a storage root key that no TPM has: its modulus ends otherwise."""
    return public(RSA_SRK[:-2] + (2 * n + 1).to_bytes(2, "big"))


async def _roots(world: DpsWorld) -> list[str]:
    from birthmark.dps import store

    row = await world.database.one(store.GET_ROOTS, scope=world.instance.id_scope, registration_id=NAME)
    return [] if row is None else str(row["storage_root_keys"]).split()
