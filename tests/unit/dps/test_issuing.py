"""Which registration is issued a certificate, and which has it already."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.dps import enrollment_document, wire
from birthmark.dps.enrollment_document import EnrollmentDocument
from birthmark.dps.model import Enrollment, Registration, X509Group
from birthmark.dps.rules.enrollment_validation import EnrollmentInvalidError, policy_of
from birthmark.dps.rules.registration import CsrNameError, NoIssuingPolicyError, check_csr, is_repeated
from birthmark.errors import BirthmarkError
from birthmark.pki.csr import (
    MAX_CSR_BYTES,
    CertificateRequest,
    CsrMalformedError,
    CsrTooLargeError,
    parse_csr,
    parse_csr_text,
)
from birthmark.pki.names_and_registration_ids import RegistrationId
from support.fakes import NOON
from support.pki.pki_builders import a_csr, a_device

KEY = b"k" * 32
ISSUING = Enrollment("line", X509Group(), is_group=True, policy="device")
REGISTERED = Registration(
    RegistrationId("device-1"),
    "line",
    "device-1",
    "hub.example",
    "initialAssignment",
    "op",
    "e",
    NOON,
    NOON,
    None,
    issued_key=KEY,
    issued_by="device",
    issued_at=NOON,
    issued_chain=("leaf",),
)
ENDS = NOON + timedelta(days=30)


def a_request(name: str = "device-1") -> CertificateRequest:
    return parse_csr(a_csr(name))


def a_document(**names: object) -> EnrollmentDocument:
    pem = a_device(common_name="device-1").certificate.pem()
    pair = {"primary": {"certificate": pem}}
    body = {"registrationId": "device-1", "attestation": {"type": "x509", "x509": {"clientCertificates": pair}}}
    return enrollment_document.parse_document(msgspec.json.encode(body | names))


@pytest.mark.parametrize("name", ["device-1", "Device-1"])
def test_a_request_for_the_registration_id_is_granted_by_the_policy(name: str) -> None:
    assert check_csr(ISSUING, "device-1", a_request(name)) == "device"


def test_an_enrollment_without_a_policy_issues_nothing() -> None:
    with pytest.raises(NoIssuingPolicyError):
        check_csr(replace(ISSUING, policy=None), "device-1", a_request())


@pytest.mark.parametrize("name", ["device-2", "device-1.evil", "device-1 "])
def test_a_request_for_another_name_is_refused(name: str) -> None:
    with pytest.raises((CsrNameError, BirthmarkError)):
        check_csr(ISSUING, "device-1", a_request(name))


@pytest.mark.parametrize("after", [timedelta(0), timedelta(minutes=59)])
def test_the_same_key_within_the_hour_is_the_same_operation(after: timedelta) -> None:
    assert is_repeated(REGISTERED, ISSUING, KEY, ENDS, NOON + after)


@pytest.mark.parametrize(
    ("present", "enrollment", "key", "ends", "now"),
    [
        (None, ISSUING, KEY, ENDS, NOON),
        (REGISTERED, ISSUING, b"another", ENDS, NOON),
        (REGISTERED, ISSUING, KEY, ENDS, NOON + timedelta(minutes=61)),
        (REGISTERED, ISSUING, KEY, NOON + timedelta(minutes=10), NOON + timedelta(minutes=2)),
        (REGISTERED, replace(ISSUING, policy="ldevid"), KEY, ENDS, NOON),
        (replace(REGISTERED, issued_at=None), ISSUING, KEY, ENDS, NOON),
    ],
    ids=["new", "another key", "later", "short-lived", "another policy", "nothing issued"],
)
def test_anything_else_is_a_new_one(
    present: Registration | None, enrollment: Enrollment, key: bytes, ends: datetime, now: datetime
) -> None:
    assert not is_repeated(present, enrollment, key, ends, now)


@pytest.mark.parametrize(
    "names",
    [
        {"namespaceName": "a", "certificateAuthorityName": "b", "certificatePolicyName": "device"},
        {"credentialPolicyName": "device"},
        {"clientCertificateIssuancePolicy": {"certificateAuthorityName": "device"}},
        {"credentialPolicyName": "device", "clientCertificateIssuancePolicy": {"certificateAuthorityName": "device"}},
    ],
)
def test_a_policy_is_read_in_the_words_of_each_version(names: dict[str, object]) -> None:
    assert policy_of(a_document(**names)) == "device"


@pytest.mark.parametrize(
    "names",
    [
        {"namespaceName": "a"},
        {"certificatePolicyName": "device"},
        {"namespaceName": "a", "certificateAuthorityName": "b"},
        {"credentialPolicyName": "device", "clientCertificateIssuancePolicy": {"certificateAuthorityName": "ldevid"}},
    ],
)
def test_names_that_do_not_belong_together_are_refused(names: dict[str, object]) -> None:
    with pytest.raises(EnrollmentInvalidError):
        policy_of(a_document(**names))


def test_no_policy_is_none() -> None:
    assert policy_of(a_document()) is None


@pytest.mark.parametrize("text", ["", "not base64!", "-----BEGIN CERTIFICATE REQUEST-----", "AAAA\nAAAA", "é"])
def test_what_is_no_base64_of_a_request_is_refused(text: str) -> None:
    with pytest.raises(CsrMalformedError):
        parse_csr_text(text)


def test_a_request_is_bounded_before_it_is_decoded() -> None:
    with pytest.raises(CsrTooLargeError):
        parse_csr_text("A" * (MAX_CSR_BYTES * 2))


@given(st.text(max_size=200))
def test_whatever_is_sent_as_a_request_is_answered_with_a_documented_error(text: str) -> None:
    with pytest.raises(BirthmarkError):
        parse_csr_text(text)


@given(st.lists(st.sampled_from(["leaf", "root"]), max_size=3))
def test_a_chain_comes_back_as_it_was_sent(names: Sequence[str]) -> None:
    chain = [a_device(common_name=name).certificate for name in names]
    assert wire.parse_chain([base64.b64encode(one.der).decode() for one in chain]) == tuple(chain)


@pytest.mark.parametrize("texts", [["x"], ["AAAA"], ["MIIB"]])
def test_a_chain_of_something_else_is_no_answer(texts: list[str]) -> None:
    with pytest.raises(wire.AnswerInvalidError):
        wire.parse_chain(texts)
