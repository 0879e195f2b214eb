"""Registering over AMQP, frame by frame: proofs, links and requests, also of clients that break the rules."""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from birthmark.amqp.message import AmqpMessage, MessageProperties, SequenceBody, ValueBody, write_message
from birthmark.amqp.performatives import Attach, Detach, Disposition
from birthmark.amqp.values import Int, Symbol
from birthmark.auth.sas import derive_device_key, render_sas
from birthmark.dps.amqp import DpsAmqp
from birthmark.dps.amqp.connection import CREDIT, MAX_LINKS, MAX_REFUSED_PROOFS
from birthmark.dps.amqp.messages import MAX_CORRELATION, MAX_MESSAGE_BYTES
from birthmark.dps.amqp.tpm_exchange import MAX_PIECES, PIECE_BYTES, split_key
from birthmark.dps.connections import MAX_OF_ONE
from birthmark.dps.enrollment_document import AttestationMechanism, EnrollmentDocument
from birthmark.dps.model import TpmKeys
from birthmark.dps.service.attester import BURST
from birthmark.dps.wire import TpmAttestation
from birthmark.errors import UnavailableError
from birthmark.net.amqp_driver import AUTHENTICATION_S
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.pki.names_and_registration_ids import parse_registration_id
from birthmark.pki.tpm_public_key import sized
from support.azure.dps_amqp import AmqpDevice, connect, connections
from support.azure.dps_world import SOON_S, DpsWorld, a_dps
from support.azure.sas_tokens import make_sas
from support.chips.tpm_vectors import RSA_EK, RSA_SRK
from support.chips.tpms import a_tpm, public
from support.fakes import NOON
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration
KEY = b"k" * 32
UNAUTHORIZED = ("amqp:unauthorized-access", 401002)


def plain(world: DpsWorld, name: str, *, signed_for: str = "", key: bytes = KEY) -> bytes:
    """Return the PLAIN response of a device in the group with `key`."""
    path = f"{world.instance.id_scope}/registrations/"
    token = make_sas(path + (signed_for or name), derive_device_key(key, signed_for or name), SOON_S, "registration")
    return f"\0{path}{name}\0{token}".encode()


async def by_key(world: DpsWorld, shared: DpsAmqp, name: str = "pump-1") -> AmqpDevice:
    """Return an authenticated device with an open connection."""
    device = connect(world, shared.connect)
    device.begin_sasl("PLAIN", plain(world, name))
    assert await device.outcome() == 0
    device.begin()
    return device


async def a_sender(world: DpsWorld) -> tuple[AmqpDevice, int]:
    await world.key_group("pumps", KEY)
    device = await by_key(world, DpsAmqp(connections(world)))
    return device, await device.attach_both("pump-1")


# ---- proofs


async def test_a_certificate_registers_without_sasl(database_url: str) -> None:
    async with a_dps(database_url) as world:
        holder = a_device(common_name="pump-1")
        await world.individual("pump-1", holder)
        shared = connections(world)
        device = connect(world, DpsAmqp(shared).connect, holder.certificate)
        device.begin()
        handle = await device.attach_both("PUMP-1")  # the letter case does not matter
        assert (device.owner, shared.live_connections()) == ("", ())
        device.request(handle, "iotdps-get-registration")
        await device.until(device.rejections)
        assert device.owner == holder.certificate.thumbprint.hex()
        device.request(handle, body=b'{"registrationId": "pump-1"}', correlation="one")
        await device.until(device.answers)
        ((correlation, answer),) = device.answers()
        assert (correlation, answer["status"], answer["registrationState"]["deviceId"]) == ("one", "assigned", "pump-1")
        device.request(handle, "iotdps-get-operationstatus", b"", **{"iotdps-operation-id": answer["operationId"]})
        device.request(handle, "iotdps-get-registration", b"")
        await device.until(lambda: len(device.answers()) == 3)
        assert [one["status"] for _, one in device.answers()] == ["assigned"] * 3
        assert [one.device for one in shared.live_connections()] == [(world.instance.id_scope, "pump-1")]
        device.driver.connection_lost(None)
        assert shared.live_connections() == ()


@pytest.mark.parametrize("mechanism", ["ANONYMOUS", "EXTERNAL"])
async def test_a_certificate_registers_with_sasl_that_names_no_client(database_url: str, mechanism: str) -> None:
    async with a_dps(database_url) as world:
        holder = a_device(common_name="pump-1")
        await world.individual("pump-1", holder)
        device = connect(world, DpsAmqp(connections(world)).connect, holder.certificate)
        device.begin_sasl(mechanism)
        assert await device.outcome() == 0
        device.begin()
        device.request(await device.attach_both("pump-1"))
        await device.until(device.answers)


async def test_a_token_registers_and_its_owner_is_the_registration(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        assert device.owner == f"registration {world.instance.id_scope}/pump-1"
        forced: dict[str, Any] = {"iotdps-forceRegistration": True}
        device.request(handle, **forced)
        await device.until(device.answers)
        assert device.got(Disposition)[0].settled


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ("pump-2", "sas.signature_mismatch"),
        ("nobody/registrations/pump-1", "dps.unknown_scope"),
        ("pump 1", "pki.registration_id_invalid"),
    ],
)
async def test_a_token_of_another_device_or_scope_is_refused(database_url: str, user: str, code: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        device = connect(world, DpsAmqp(connections(world)).connect)
        response = plain(world, user, signed_for="pump-1")
        if "/" in user:
            response = plain(world, "pump-1").replace(device.address("pump-1").encode(), user.encode(), 1)
        device.begin_sasl("PLAIN", response)
        assert await device.outcome() == 1
        assert device.is_over
        (error,) = device.refused
        assert error.code == code or "not_enrolled" in error.code


async def test_a_user_name_of_another_form_is_refused(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin_sasl("PLAIN", b"\0scope/registrations/\0token")
        assert await device.outcome() == 1
        assert [one.code for one in device.refused] == ["dps.amqp_request_invalid"]


async def test_the_outcome_is_temporary_while_the_database_is_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 4 of SASL: the device's credentials were not refused."""

    async def unavailable(_claim: object) -> None:
        raise UnavailableError

    async with a_dps(database_url) as world:
        shared = connections(world)
        monkeypatch.setattr(shared.registrations.attester, "attest", unavailable)
        device = connect(world, DpsAmqp(shared).connect)
        device.begin_sasl("PLAIN", plain(world, "pump-1"))
        assert await device.outcome() == 4


async def test_who_proves_nothing_has_few_attempts_and_is_then_disconnected(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        shared = connections(world)
        device = connect(world, DpsAmqp(shared).connect)
        device.begin()
        handle = await device.attach_both("pump-1")
        for _ in range(MAX_REFUSED_PROOFS):
            device.request(handle)
        await device.until(lambda: device.is_over)
        assert [one[:2] for one in device.rejections()] == [UNAUTHORIZED] * MAX_REFUSED_PROOFS
        assert device.closing() == ["amqp:unauthorized-access"]
        assert device.owner == ""
        assert sum(shared.ledger.counts.values()) == MAX_REFUSED_PROOFS
        assert shared.live_connections() == ()
        assert await world.registrations.find(world.instance, parse_registration_id("pump-1")) is None


async def test_links_elsewhere_are_attempts_of_who_proves_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin()
        for _ in range(2 * MAX_REFUSED_PROOFS):
            device.attach("$cbs", receives=True)
        await device.until(lambda: device.is_over)
        assert device.closing() == ["amqp:unauthorized-access"]


async def test_who_does_not_authenticate_in_time_is_disconnected(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin()
        world.clock.move(timedelta(seconds=AUTHENTICATION_S + 1))
        assert device.deadline is not None
        device.deadline()
        assert device.is_over


async def test_above_the_limit_the_oldest_connection_of_a_device_is_closed(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        shared = connections(world)
        accepting = DpsAmqp(shared)
        devices = [await by_key(world, accepting) for _ in range(MAX_OF_ONE + 1)]
        assert [one.is_over for one in devices] == [True] + [False] * MAX_OF_ONE
        assert devices[0].closing() == ["amqp:connection:forced"]
        assert len(shared.live_connections()) == MAX_OF_ONE


async def test_the_connection_of_a_revoked_certificate_is_closed(database_url: str) -> None:
    async with a_dps(database_url) as world:
        holder = a_device(common_name="pump-1")
        await world.individual("pump-1", holder)
        shared = connections(world)
        device = connect(world, DpsAmqp(shared).connect, holder.certificate)
        device.begin()
        device.request(await device.attach_both("pump-1"))
        await device.until(device.answers)
        (live,) = shared.live_connections()
        assert (live.driver.peer.leaf, live.driver.address) == (holder.certificate, "192.0.2.7")
        live.driver.close(CloseReason.ADMINISTRATIVE)
        assert device.is_over
        assert live.driver.is_over
        assert device.closing() == ["amqp:connection:forced"]
        assert shared.live_connections() == ()


# ---- links


@pytest.mark.parametrize("receives", [True, False])
async def test_a_device_has_no_link_at_the_address_of_another(database_url: str, receives: bool) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        shared = connections(world)
        device = await by_key(world, DpsAmqp(shared))
        for address in (device.address("pump-2"), "other/registrations/pump-1", "$cbs", ""):
            device.attach(address, receives=receives)
        await device.until(lambda: len(device.detachments()) == 4)
        assert set(device.detachments()) == {"amqp:unauthorized-access"}
        assert shared.ledger.counts["dps.amqp_address_mismatch"] == 4
        assert not device.is_over


async def test_a_second_device_of_the_same_certificate_ca_is_not_the_first(database_url: str) -> None:
    async with a_dps(database_url) as world:
        first, second = a_device(common_name="pump-1"), a_device(common_name="pump-2")
        await world.individual("pump-1", first)
        await world.individual("pump-2", second)
        shared = connections(world)
        device = connect(world, DpsAmqp(shared).connect, second.certificate)
        device.begin()
        device.request(await device.attach_both("pump-1"))
        await device.until(device.rejections)
        assert device.rejections()[0][:2] == UNAUTHORIZED
        assert shared.ledger.counts["dps.registration_id_mismatch"] == 1
        device.attach(device.address("pump-2"), receives=True)  # the connection has claimed another device
        await device.until(device.detachments)
        device = connect(world, DpsAmqp(shared).connect, second.certificate)
        device.begin()
        handle = await device.attach_both("pump-2")
        device.request(handle, body=b'{"registrationId": "pump-1"}')
        await device.until(device.rejections)
        assert device.rejections()[0][:2] == UNAUTHORIZED
        assert shared.ledger.counts["dps.other_registration"] == 1
        device.request(handle)
        await device.until(device.answers)
        assert device.answers()[0][1]["registrationState"]["registrationId"] == "pump-2"
        assert await world.registrations.find(world.instance, parse_registration_id("pump-1")) is None


async def test_links_are_few(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, _ = await a_sender(world)
        for _ in range(MAX_LINKS):
            device.attach(device.address("pump-1"), receives=True)
        await device.until(lambda: len(device.detachments()) == 2)
        assert set(device.detachments()) == {"amqp:resource-limit-exceeded"}
        device.send(Detach(0, closed=True))
        device.heard.clear()
        device.attach(device.address("pump-1"), receives=True)
        await device.until(lambda: device.got(Attach))
        assert device.detachments() == []


async def test_a_link_that_is_detached_while_it_is_decided_is_forgotten(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        device = await by_key(world, DpsAmqp(connections(world)))
        for _ in range(2 * MAX_LINKS):
            handle = device.attach(device.address("pump-1"), receives=False)
            device.send(Detach(handle, closed=True))
        await device.settle()
        assert device.detachments() == []


# ---- requests


@pytest.mark.parametrize(
    ("operation", "body", "condition", "number"),
    [
        ("iotdps-delete", b"{}", "com.microsoft:argument-error", 400004),
        ("iotdps-register", b"{", "com.microsoft:argument-error", 400004),
        ("iotdps-register", b"\xff\xfe", "com.microsoft:argument-error", 400004),
        ("iotdps-register", b'{"csr": "x"}', "com.microsoft:argument-error", 400004),
        ("iotdps-register", b'{"registrationId": "pump-2"}', *UNAUTHORIZED),
        ("iotdps-get-registration", b"{}", "amqp:not-found", 404202),
        ("iotdps-get-operationstatus", b"", "amqp:not-found", 404202),
    ],
)
async def test_a_refused_request_is_rejected_with_azures_number(
    database_url: str, operation: str, body: bytes, condition: str, number: int
) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        device.request(handle, operation, body)
        await device.until(device.rejections)
        assert device.rejections()[0][:2] == (condition, number)
        device.request(handle)  # and the next one is served
        await device.until(device.answers)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 50,
        write_message(AmqpMessage(ValueBody("{}"))),
        write_message(AmqpMessage(properties=MessageProperties(correlation_id="x" * (MAX_CORRELATION + 1)))),
        write_message(
            AmqpMessage(
                SequenceBody(([1],)),
                MessageProperties(correlation_id="c"),
                {"iotdps-operation-type": "iotdps-register"},
            )
        ),
        write_message(
            AmqpMessage(properties=MessageProperties(correlation_id="c"), application_properties={"a": [{"b": 1}]})
        ),
    ],
)
async def test_a_message_that_is_no_request_is_rejected(database_url: str, payload: bytes) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        device.transfer(handle, payload)
        await device.until(device.rejections)
        assert device.rejections()[0][:2] == ("com.microsoft:argument-error", 400004)
        assert not device.is_over


async def test_a_request_needs_no_correlation_id_as_the_sdk_for_java_sends_none(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        device.request(handle, correlation=None)
        await device.until(device.answers)
        ((correlation, answer),) = device.answers()
        assert (correlation, answer["status"]) == (None, "assigned")


async def test_a_body_may_be_a_text_as_the_sdk_for_node_sends_it(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        for body in (ValueBody("{}"), ValueBody(b"{}"), ValueBody(None), None):
            asked = {"iotdps-operation-type": "iotdps-register"}
            device.transfer(handle, write_message(AmqpMessage(body, MessageProperties(correlation_id=b"c"), asked)))
        await device.until(lambda: len(device.answers()) == 4)
        assert {correlation for correlation, _ in device.answers()} == {b"c"}


async def test_a_message_that_is_too_large_ends_its_link(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        device.request(handle, body=json.dumps({"payload": "x" * MAX_MESSAGE_BYTES}).encode())
        await device.until(device.detachments)
        assert device.detachments() == ["amqp:link:message-size-exceeded"]


async def test_a_request_without_a_link_for_the_response_registers_nobody(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        device = await by_key(world, DpsAmqp(connections(world)))
        handle = device.attach(device.address("pump-1"), receives=False)
        device.request(handle)
        await device.until(device.rejections)
        assert await world.registrations.find(world.instance, parse_registration_id("pump-1")) is None


async def test_a_device_that_registers_too_often_is_told_when_to_retry(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        for number in range(BURST + 1):
            device.request(handle)
            await device.until(partial(has_settled, device, number))
        ((condition, number, info),) = device.rejections()
        assert (condition, number) == ("com.microsoft:device-container-throttled", 429001)
        assert info == {Symbol("retry-after"): Int(3)}


async def test_responses_that_nobody_takes_end_their_link_alone(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        device = await by_key(world, DpsAmqp(connections(world)))
        device.attach(device.address("pump-1"), receives=True, credit=0)
        handle = device.attach(device.address("pump-1"), receives=False)
        device.request(handle)
        for number in range(60):
            await device.until(partial(has_settled, device, number))
            device.request(handle, "iotdps-get-registration")
        await device.until(device.detachments)
        assert device.detachments() == ["amqp:resource-limit-exceeded"]
        assert not device.is_over


def has_settled(device: AmqpDevice, number: int) -> bool:
    return any(one.first <= number <= (one.last or one.first) for one in device.got(Disposition))


async def test_credit_bounds_the_requests_that_wait(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device, handle = await a_sender(world)
        for _ in range(3 * CREDIT):
            device.request(handle, "iotdps-get-registration")
        await device.until(device.detachments)
        assert device.detachments() == ["amqp:link:transfer-limit-exceeded"]


async def test_a_device_that_is_disabled_meanwhile_does_not_register(database_url: str) -> None:
    async with a_dps(database_url) as world:
        holder = a_device(common_name="pump-1")
        await world.individual("pump-1", holder)
        device = connect(world, DpsAmqp(connections(world)).connect, holder.certificate)
        device.begin()
        handle = await device.attach_both("pump-1")
        document = await world.enrollments.document(world.instance.id_scope, "pump-1", is_group=False)
        disabled = msgspec.structs.replace(document, provisioning_status="disabled")
        await world.enrollments.put(world.instance, disabled, None, actor="test")
        device.request(handle)
        await device.until(device.rejections)
        assert device.rejections()[0][:2] == UNAUTHORIZED


# ---- TPM


async def enroll_tpm(world: DpsWorld, keys: TpmKeys, status: str = "enabled") -> None:
    attestation = AttestationMechanism("tpm", tpm=TpmAttestation(keys.endorsement.base64))
    document = EnrollmentDocument(attestation=attestation, registration_id="pump-1", provisioning_status=status)
    await world.enrollments.put(world.instance, document, None, actor="test")


def init(world: DpsWorld, endorsement: bytes) -> bytes:
    return b"\0".join((b"", world.instance.id_scope.encode(), b"pump-1", endorsement))


async def until_sealed(device: AmqpDevice) -> bytes:
    """Take the pieces of the sealed key, and return it."""
    while device.challenges()[-1][0] & 0xC0 != 0xC0:
        count = len(device.challenges())
        if count > 1:
            device.respond(b"\0")
        await device.until(lambda count=count: len(device.challenges()) > count)  # type: ignore[misc]
    pieces = device.challenges()[1:]
    assert [one[0] & 3 for one in pieces] == list(range(len(pieces)))
    assert all(len(one) <= PIECE_BYTES + 1 for one in pieces)
    return b"".join(one[1:] for one in pieces)


async def test_a_tpm_proves_itself_and_registers(database_url: str) -> None:
    async with a_dps(database_url) as world:
        with a_tpm() as tpm:
            keys = tpm.keys
            assert keys.storage_root is not None
            await enroll_tpm(world, keys)
            device = connect(world, DpsAmqp(connections(world)).connect)
            device.begin_sasl("TPM", init(world, keys.endorsement.tpm2b))
            await device.until(device.challenges)
            assert device.challenges() == [b"\0"]
            device.respond(b"\0" + keys.storage_root.tpm2b)
            sealed = await until_sealed(device)
            signed = tpm_token(world, partial(tpm.device.sign_with, sealed))
            device.respond(b"\0" + signed)
            assert await device.outcome() == 0
            device.begin()
            handle = await device.attach_both("pump-1")
            device.request(handle)
            await device.until(device.answers)
            assert device.answers()[0][1]["registrationState"]["tpm"]["authenticationKey"]
            device.attach(device.address("pump-2"), receives=True)
            await device.until(device.detachments)


async def test_who_knows_the_keys_of_a_tpm_but_has_it_not_is_refused(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await enroll_tpm(world, TpmKeys(public(RSA_EK)))
        shared = connections(world)
        device = connect(world, DpsAmqp(shared).connect)
        device.begin_sasl("TPM", init(world, RSA_EK))
        await device.until(device.challenges)
        device.respond(b"\0" + RSA_SRK)
        await device.until(lambda: len(device.challenges()) > 1)
        await until_sealed(device)
        token = make_sas(device.address("pump-1"), KEY, SOON_S, "registration")
        device.respond(b"\0" + token.encode())
        assert await device.outcome() == 1
        assert [one.code for one in device.refused] == ["sas.signature_mismatch"]
        assert device.is_over
        assert shared.live_connections() == ()


@pytest.mark.parametrize(("status", "code"), [("", "dps.tpm_not_enrolled"), ("disabled", "dps.enrollment_disabled")])
async def test_a_tpm_that_is_refused_learns_it_at_the_end(database_url: str, status: str, code: str) -> None:
    async with a_dps(database_url) as world:
        if status:
            await enroll_tpm(world, TpmKeys(public(RSA_EK)), status)
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin_sasl("TPM", init(world, RSA_EK))
        await device.until(device.challenges)
        device.respond(b"\0" + RSA_SRK)
        await device.until(lambda: len(device.challenges()) > 1)
        assert [one.code for one in device.refused] == [code]
        await until_sealed(device)
        device.respond(b"\0token")
        assert await device.outcome() == 1
        assert [one.code for one in device.refused] == [code]


def an_odd_key(bits: int) -> bytes:
    """Return a TPM2B_PUBLIC of the largest form, whose modulus is no product of two primes."""
    kind, names, attributes = b"\x00\x01", b"\x00\x0d", (1 << 16 | 1 << 17).to_bytes(4)
    cipher, modulus = bytes.fromhex("0006 0100 0043 0010"), (1 << bits - 1 | 1).to_bytes(bits // 8)
    return sized(kind + names + attributes + sized(b"") + cipher + bits.to_bytes(2) + bytes(4) + sized(modulus))


async def test_keys_that_no_tpm_has_are_sealed_for_all_the_same(database_url: str) -> None:
    async with a_dps(database_url) as world:
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin_sasl("TPM", init(world, an_odd_key(4096)))
        await device.until(device.challenges)
        device.respond(b"\0" + an_odd_key(4096))
        await device.until(lambda: len(device.challenges()) > 1)
        sealed = await until_sealed(device)
        assert PIECE_BYTES < len(sealed) <= PIECE_BYTES * MAX_PIECES
        device.respond(b"\0" + b"x" * 1500)
        assert await device.outcome() == 1
        assert [one.code for one in device.refused] == ["dps.tpm_not_enrolled"]


async def test_a_tpm_does_not_prove_an_enrollment_of_another_kind(database_url: str) -> None:
    async with a_dps(database_url) as world:
        holder = a_device(common_name="pump-1")
        await world.individual("pump-1", holder)
        device = connect(world, DpsAmqp(connections(world)).connect, holder.certificate)
        device.begin_sasl("TPM", init(world, RSA_EK))
        await device.until(device.challenges)
        device.respond(b"\0" + RSA_SRK)
        await device.until(lambda: device.refused)
        assert [one.code for one in device.refused] == ["dps.no_proof"]


@pytest.mark.parametrize(
    "response",
    [b"", b"\0", b"\0scope\0id", b"scope\0id\0key\0", b"\0scope\0id\0key", b"\0" * 600, b"\0s\0i\0" + b"x" * 1500],
)
async def test_an_init_of_another_form_is_refused(database_url: str, response: bytes) -> None:
    async with a_dps(database_url) as world:
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin_sasl("TPM", response)
        assert await device.outcome() == 1
        assert device.is_over


@pytest.mark.parametrize("responses", [[b""], [b"\0"], [b"x"], [b"\0" + RSA_SRK, b""], [b"\0" + RSA_SRK, b"\0token"]])
async def test_a_response_out_of_order_is_refused(database_url: str, responses: list[bytes]) -> None:
    async with a_dps(database_url) as world:
        await enroll_tpm(world, TpmKeys(public(RSA_EK)))
        device = connect(world, DpsAmqp(connections(world)).connect)
        device.begin_sasl("TPM", init(world, RSA_EK))
        for response in responses:
            device.respond(response)
        assert await device.outcome() == 1
        assert device.is_over
        assert len(device.refused) == 1


async def test_a_line_that_is_cut_while_a_proof_is_verified_leaves_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await world.key_group("pumps", KEY)
        shared = connections(world)
        for end in ("lost", "deadline"):
            device = connect(world, DpsAmqp(shared).connect)
            device.begin_sasl("PLAIN", plain(world, "pump-1"))
            if end == "lost":
                device.driver.connection_lost(None)
            else:
                device.driver.close()
            await device.settle()
            assert shared.live_connections() == ()


def tpm_token(world: DpsWorld, sign: Callable[[bytes], bytes]) -> bytes:
    resource = f"{world.instance.id_scope}/registrations/pump-1"
    return render_sas(resource, sign, NOON + timedelta(hours=1), "registration").encode()


def test_a_key_is_split_into_numbered_pieces() -> None:
    assert split_key(b"x") == [b"\xc0x"]
    assert split_key(b"x" * PIECE_BYTES) == [b"\xc0" + b"x" * PIECE_BYTES]
    pieces = split_key(bytes(PIECE_BYTES * MAX_PIECES))
    assert [one[0] for one in pieces] == [0x80, 0x81, 0x82, 0xC3]
