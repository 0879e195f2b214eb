"""May a device have a certificate in the place of its own, and which one goes with it."""

import base64
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, Credential, Device, DeviceAuthentication, parse_device_id
from birthmark.iothub.rules.certificate_renewal import (
    CredentialBusyError,
    CredentialNameError,
    NoCertificateError,
    OtherDeviceError,
    add_new_certificate,
    check_is_alone,
    check_name,
    check_own,
    find_unused,
    is_repeated,
    keep_new_certificate,
)
from birthmark.pki.csr import CsrRefusedError, parse_csr
from birthmark.store import to_micros
from support.fakes import NOON
from support.pki.pki_builders import a_csr, a_device

LEAF = a_device(common_name="device-1").certificate
OTHER, FRESH, KEY = b"o" * 32, b"f" * 32, b"k" * 32
NAME = parse_device_id("device-1")
NOW = to_micros(NOON)


def a_hub_device(*thumbprints: bytes | None) -> Device:
    authentication = DeviceAuthentication(AuthenticationType.SELF_SIGNED, *thumbprints)
    return Device(
        "main", NAME, "g", "e", True, None, authentication, is_iot_edge=False, created_at=NOON, updated_at=NOON
    )


def a_credential(**fields: object) -> Credential:
    base = Credential("main", NAME, "g", "v", thumbprint=FRESH, key_digest=KEY, issued_at=NOW)
    return replace(base, **fields)  # type: ignore[arg-type]  # fields by name


def asked(device_id: str = "device-1", name: str = "device-1", replaces: str | None = None) -> wire.CredentialRequest:
    return wire.CredentialRequest(device_id, parse_csr(a_csr(name)), replaces)


def test_a_device_asks_for_itself() -> None:
    check_own(a_hub_device(LEAF.thumbprint), asked())


@pytest.mark.parametrize("name", ["device-2", "DEVICE-1", ""])
def test_a_device_that_asks_for_another_is_refused(name: str) -> None:
    with pytest.raises(OtherDeviceError):
        check_own(a_hub_device(LEAF.thumbprint), asked(name))


def test_a_device_on_record_by_keys_has_nothing_to_renew() -> None:
    device = replace(a_hub_device(), authentication=DeviceAuthentication(AuthenticationType.SAS, primary_key=KEY))
    with pytest.raises(NoCertificateError):
        check_own(device, asked())


@pytest.mark.parametrize("name", ["device-1", "registration-1", "Registration-1"])
def test_a_request_has_the_name_of_the_device_or_of_its_registration(name: str) -> None:
    check_name(a_hub_device(LEAF.thumbprint), asked(name=name), ("device-1", "registration-1"))


def test_a_request_with_another_name_is_refused() -> None:
    with pytest.raises(CredentialNameError):
        check_name(a_hub_device(LEAF.thumbprint), asked(name="device-2"), ("device-1",))


UNDER_WAY = a_credential(request_id="7", session="mine", expires_at=NOW + 1)


def test_a_second_request_of_a_connection_waits_for_the_first() -> None:
    with pytest.raises(CredentialBusyError):
        check_is_alone(UNDER_WAY, asked(), "mine", NOW, NOON)


@pytest.mark.parametrize(
    ("known", "replaces", "session", "now"),
    [
        (None, None, "mine", NOW),
        (a_credential(), None, "mine", NOW),
        (UNDER_WAY, None, "another", NOW),
        (UNDER_WAY, None, "mine", NOW + 1),
        (UNDER_WAY, "*", "mine", NOW),
        (UNDER_WAY, "7", "mine", NOW),
    ],
    ids=["the first", "none under way", "of a connection that is gone", "over", "replaced", "replaced by its id"],
)
def test_any_other_request_is_taken(known: Credential | None, replaces: str | None, session: str, now: int) -> None:
    check_is_alone(known, asked(replaces=replaces), session, now, NOON)


def test_another_requests_id_replaces_nothing() -> None:
    with pytest.raises(CredentialBusyError):
        check_is_alone(UNDER_WAY, asked(replaces="8"), "mine", NOW, NOON)


def test_what_was_issued_and_not_used_is_the_second_thumbprint() -> None:
    assert find_unused(a_hub_device(LEAF.thumbprint, FRESH), a_credential()) == a_credential()


@pytest.mark.parametrize(
    ("device", "known"),
    [
        (a_hub_device(LEAF.thumbprint, FRESH), None),
        (a_hub_device(LEAF.thumbprint, FRESH), a_credential(generation_id="another")),
        (a_hub_device(LEAF.thumbprint, OTHER), a_credential()),
        (a_hub_device(FRESH), a_credential()),
        (a_hub_device(LEAF.thumbprint, None), a_credential(thumbprint=None)),
    ],
    ids=["none", "of a device that was removed", "taken off", "in use", "under way only"],
)
def test_nothing_else_counts_as_unused(device: Device, known: Credential | None) -> None:
    assert find_unused(device, known) is None


@pytest.mark.parametrize(
    ("slots", "leaf", "kept"),
    [
        ((LEAF.thumbprint, None), LEAF, LEAF.thumbprint),
        ((LEAF.thumbprint, OTHER), LEAF, LEAF.thumbprint),
        ((OTHER, LEAF.thumbprint), LEAF, LEAF.thumbprint),
        ((OTHER, LEAF.x5t_sha1), LEAF, LEAF.x5t_sha1),
        ((OTHER, None), None, OTHER),
        ((None, None), None, FRESH),
    ],
    ids=["the first", "beside another", "the second", "by SHA-1", "no certificate", "nothing"],
)
def test_the_certificate_in_use_stays_beside_the_new_one(
    slots: tuple[bytes | None, bytes | None], leaf: object, kept: bytes
) -> None:
    made = add_new_certificate(a_hub_device(*slots), leaf, FRESH)  # type: ignore[arg-type]  # a certificate or none
    assert (made.primary_thumbprint, made.secondary_thumbprint) == (kept, FRESH)


def test_who_connected_by_the_new_one_has_it_alone() -> None:
    made = keep_new_certificate(a_hub_device(LEAF.thumbprint, FRESH))
    assert (made.primary_thumbprint, made.secondary_thumbprint) == (FRESH, FRESH)


@pytest.mark.parametrize(
    ("after", "key", "is_same"),
    [
        (timedelta(minutes=59), KEY, True),
        (timedelta(minutes=61), KEY, False),
        (timedelta(0), OTHER, False),
    ],
)
def test_the_same_key_within_the_hour_is_given_the_same_certificate(
    after: timedelta, key: bytes, is_same: bool
) -> None:
    assert is_repeated(a_credential(), key, NOON + timedelta(days=30), NOON + after) is is_same


def test_the_body_of_a_request_is_read() -> None:
    der = a_csr("device-1")
    body = msgspec.json.decode(wire.credential_request_json("device-1", der))
    read = wire.parse_credential_request(msgspec.json.encode(body))
    assert (read.device_id, read.csr.der, read.replaces) == ("device-1", der, "*")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"id": 1, "csr": "x"}', b'{"id": "d"}', b'{"id": "d", "csr": "x", "replace": 1}']
)
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises((wire.BodyInvalidError, CsrRefusedError)):
        wire.parse_credential_request(body)


@given(st.binary(max_size=300))
def test_whatever_is_sent_is_answered_with_a_documented_error(body: bytes) -> None:
    with pytest.raises(BirthmarkError):
        wire.parse_credential_request(body)


@given(st.integers(100, 599), st.text("abcdef0123456789-", min_size=1, max_size=40))
def test_an_answers_topic_says_what_was_asked(status: int, rid: str) -> None:
    assert wire.parse_credential_topic(wire.credential_response_topic(status, rid)) == (status, rid)


@pytest.mark.parametrize("topic", ["", "$iothub/twin/res/200/?$rid=1", "$iothub/credentials/res/20/?$rid=1"])
def test_another_topic_is_no_answer(topic: str) -> None:
    assert wire.parse_credential_topic(topic) is None


def test_a_request_is_a_topic_of_its_own() -> None:
    assert wire.parse_topic(wire.issue_topic("42"), "device-1") == wire.CredentialAsk("42")
    assert wire.parse_topic("$iothub/credentials/POST/issueCertificate/", "device-1") is None
    assert wire.parse_topic("$iothub/credentials/POST/other/?$rid=1", "device-1") is None


def test_a_chain_comes_back_from_an_answer() -> None:
    chain = [base64.b64encode(LEAF.der).decode()]
    assert wire.parse_issued(wire.issued_json("c", chain)) == (LEAF,)
