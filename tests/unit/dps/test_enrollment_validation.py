"""What makes an enrollment's document complete, what is refused, and what decisions read of it."""

import base64
from typing import Any

import msgspec
import pytest

from birthmark.dps.enrollment_document import EnrollmentDocument, parse_document
from birthmark.dps.model import (
    DeviceIdInvalidError,
    Enrollment,
    GroupIdInvalidError,
    SymmetricKey,
    X509Group,
    X509Individual,
)
from birthmark.dps.rules.enrollment_validation import (
    AttestationNotServedError,
    EnrollmentInvalidError,
    certificates_of,
    complete,
    enrollment_of,
)
from birthmark.dps.rules.registration import AllocationNotServedError
from birthmark.dps.wire import BodyInvalidError
from birthmark.pki.certificates import CertificateKeySwappedError
from birthmark.pki.names_and_registration_ids import RegistrationIdInvalidError
from support.fakes import SeededEntropy
from support.pki.pki_builders import a_ca, a_device

CA = a_ca()
DEVICE = a_device(CA)
KEY = base64.b64encode(b"k" * 32).decode()
DEVICES = {"primary": {"certificate": DEVICE.certificate.pem()}}
CAS = {"primary": {"certificate": CA.certificate.pem()}}
NAMES = {"primary": "our-ca"}


def x509(**fields: object) -> dict[str, Any]:
    return {"type": "x509", "x509": fields}


def keys(primary: str) -> dict[str, Any]:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": primary}}


BY_CERTIFICATE = x509(clientCertificates=DEVICES)
BY_CA, BY_REFERENCE = x509(signingCertificates=CAS), x509(caReferences=NAMES)
BOTH = x509(signingCertificates=CAS, caReferences=NAMES)
SWAPPED = x509(clientCertificates={"primary": {"certificate": "-----BEGIN PRIVATE KEY-----"}})


def completed(previous: EnrollmentDocument | None = None, **fields: Any) -> EnrollmentDocument:
    given = parse_document(msgspec.json.encode({"attestation": BY_CERTIFICATE} | fields))
    return complete(given, previous, SeededEntropy())


def decided(**fields: Any) -> Enrollment:
    return enrollment_of(completed(**fields))


def test_an_individual_enrollment_takes_its_certificate() -> None:
    found = decided(registrationId="Device-1")
    assert found.attestation == X509Individual((DEVICE.certificate.thumbprint,))
    assert (found.id, found.is_group, found.group_id, found.is_enabled) == ("device-1", False, None, True)


@pytest.mark.parametrize("attestation", [BY_CA, BY_REFERENCE])
def test_a_group_takes_what_its_ca_issued(attestation: dict[str, Any]) -> None:
    found = decided(enrollmentGroupId="Fleet", attestation=attestation)
    assert (found.attestation, found.group_id) == (X509Group(), "fleet")


def test_a_group_carries_its_certificates_or_names_them() -> None:
    assert certificates_of(completed(enrollmentGroupId="fleet", attestation=BY_CA)) == [CA.certificate]
    assert certificates_of(completed(enrollmentGroupId="fleet", attestation=BY_REFERENCE)) == []


def test_keys_that_are_left_out_are_made_and_stay() -> None:
    first = completed(registrationId="d", attestation={"type": "symmetricKey"})
    again = completed(first, registrationId="d", attestation={"type": "symmetricKey"})
    assert again.attestation == first.attestation
    made = enrollment_of(first).attestation
    assert isinstance(made, SymmetricKey)
    assert {len(key) for key in made.keys} == {64}
    assert "keys" not in repr(made)


def test_a_key_that_is_given_is_taken() -> None:
    given = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
    assert decided(registrationId="d", attestation=given).attestation == SymmetricKey((b"k" * 32, b"k" * 32))


def test_what_else_is_decided_on() -> None:
    found = decided(
        registrationId="d",
        provisioningStatus="disabled",
        deviceId="Truck 7".replace(" ", "-"),
        capabilities={"iotEdge": True},
        allocationPolicy="Hashed",
        iotHubs=["b.example", "a.example"],
        reprovisionPolicy={"updateHubAssignment": False, "migrateDeviceData": False},
    )
    assert (found.is_enabled, found.device_id, found.is_edge) == (False, "Truck-7", True)
    assert (found.hubs, found.keeps_hub) == (("a.example", "b.example"), True)


def test_the_one_hub_that_is_named_wins_over_a_list() -> None:
    found = decided(registrationId="d", iotHubHostName="one.example", iotHubs=["a.example"], allocationPolicy="hashed")
    assert found.hubs == ("one.example",)


def test_what_is_told_of_a_device_has_as_many_bytes_as_a_twins_tags() -> None:
    kept = decided(registrationId="d", optionalDeviceInformation={"note": "x" * 8_000})
    assert kept.id == "d"
    with pytest.raises(BodyInvalidError, match="optionalDeviceInformation has more than 8192 bytes"):
        decided(registrationId="d", optionalDeviceInformation={"note": "x" * 8_192})


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"registrationId": "d", "provisioningStatus": "maybe"}, EnrollmentInvalidError),
        ({"registrationId": "d", "allocationPolicy": "geoLatency"}, AllocationNotServedError),
        ({"registrationId": "d", "iotHubs": ["a.example"]}, EnrollmentInvalidError),
        ({"registrationId": "d", "attestation": {"type": "none"}}, AttestationNotServedError),
        ({"registrationId": "d", "attestation": {"type": "x509"}}, EnrollmentInvalidError),
        ({"registrationId": "d", "attestation": BY_CA}, EnrollmentInvalidError),
        ({"registrationId": "no spaces"}, RegistrationIdInvalidError),
        ({"registrationId": "d", "deviceId": "ä"}, DeviceIdInvalidError),
        ({"enrollmentGroupId": "a/b", "attestation": BY_CA}, GroupIdInvalidError),
        ({"enrollmentGroupId": "g"}, EnrollmentInvalidError),
        ({"enrollmentGroupId": "g", "attestation": {"type": "x509"}}, EnrollmentInvalidError),
        ({"enrollmentGroupId": "g", "attestation": BOTH}, EnrollmentInvalidError),
        ({"registrationId": "d", "attestation": keys("?")}, EnrollmentInvalidError),
        ({"registrationId": "d", "attestation": keys("c2hvcnQ=")}, EnrollmentInvalidError),
        ({"registrationId": "d", "attestation": SWAPPED}, CertificateKeySwappedError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:50],
)
def test_what_cannot_be_used_is_refused(fields: dict[str, Any], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        completed(**fields)
