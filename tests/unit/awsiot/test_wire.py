"""AWS IoT's JSON, as the operations of its service model answer."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from birthmark.awsiot import wire
from birthmark.awsiot.model import (
    Account,
    CertificateId,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    NamedPolicy,
    PolicyName,
    PolicyVersion,
    RegisteredCa,
    Thing,
    ThingName,
    ThingType,
)
from support.fakes import NOON
from support.pki.pki_builders import a_device, an_rsa_key

ACCOUNT = Account("000000000000", "us-east-1", "localhost")
ARN = "arn:aws:iot:us-east-1:000000000000:"
ID = CertificateId("ab" * 32)
LEAF = a_device().certificate
LATER = NOON + timedelta(minutes=1)
POLICY = NamedPolicy(PolicyName("p"), 2, 3, "g", NOON, LATER)
SECOND = PolicyVersion(PolicyName("p"), 2, "{}", NOON)
THIRD = PolicyVersion(PolicyName("p"), 3, "[]", LATER)


def a_certificate(ca_id: CertificateId | None = None) -> DeviceCertificate:
    return DeviceCertificate(
        ID,
        LEAF,
        CertificateStatus.ACTIVE,
        CertificateMode.DEFAULT,
        ca_id,
        NOON,
        LATER,
        customer_version=1,
        generation_id="g",
    )


def a_registered_ca(registration: str | None = None, *, is_on: bool = True) -> RegisteredCa:
    return RegisteredCa(ID, LEAF, is_on, CertificateMode.SNI_ONLY, is_on, registration, NOON, LATER, 1, "g")


def test_a_thing_has_what_it_was_given_and_no_member_for_what_it_was_not() -> None:
    plain = Thing(ThingName("t"), "id", None, {"a": "b"}, None, 1, NOON)
    typed = Thing(ThingName("t"), "id", "pump", {}, "group", 2, NOON)
    assert wire.thing_json(ACCOUNT, plain) == {
        "defaultClientId": "t",
        "thingName": "t",
        "thingId": "id",
        "thingArn": f"{ARN}thing/t",
        "attributes": {"a": "b"},
        "version": 1,
    }
    told = wire.thing_json(ACCOUNT, typed)
    assert (told["thingTypeName"], told["billingGroupName"]) == ("pump", "group")
    assert wire.thing_attribute_json(ACCOUNT, typed)["thingTypeName"] == "pump"
    assert "thingTypeName" not in wire.thing_attribute_json(ACCOUNT, plain)


def test_a_thing_type_tells_when_it_was_deprecated() -> None:
    live = wire.thing_type_json(ACCOUNT, ThingType("pump", "id", {}, None, NOON))
    gone = wire.thing_type_json(ACCOUNT, ThingType("pump", "id", {"thingTypeDescription": "x"}, LATER, NOON))
    assert live["thingTypeMetadata"] == {"deprecated": False, "creationDate": NOON.timestamp()}
    assert gone["thingTypeMetadata"] == {
        "deprecated": True,
        "creationDate": NOON.timestamp(),
        "deprecationDate": LATER.timestamp(),
    }
    assert gone["thingTypeArn"] == f"{ARN}thingtype/pump"


def test_a_certificate_is_described_with_its_ca_if_it_has_one() -> None:
    told = wire.certificate_json(ACCOUNT, a_certificate())
    assert (told["certificateArn"], told["status"], told["ownedBy"]) == (f"{ARN}cert/{ID}", "ACTIVE", "000000000000")
    assert told["validity"] == {"notBefore": LEAF.not_before.timestamp(), "notAfter": LEAF.not_after.timestamp()}
    assert "caCertificateId" not in told
    assert wire.certificate_json(ACCOUNT, a_certificate(CertificateId("cd" * 32)))["caCertificateId"] == "cd" * 32


@pytest.mark.parametrize(("is_on", "status", "automatic"), [(True, "ACTIVE", "ENABLE"), (False, "INACTIVE", "DISABLE")])
def test_a_ca_is_described_in_words(is_on: bool, status: str, automatic: str) -> None:
    told = wire.ca_json(ACCOUNT, a_registered_ca(is_on=is_on))
    assert told["certificateDescription"]["status"] == status
    assert told["certificateDescription"]["autoRegistrationStatus"] == automatic
    assert "registrationConfig" not in told


def test_a_cas_registration_comes_back_as_it_was_given() -> None:
    config = wire.RegistrationConfig(template_name="t")
    kept = wire.config_text(config)
    assert wire.ca_json(ACCOUNT, a_registered_ca(kept))["registrationConfig"] == {"templateName": "t"}
    assert wire.config_text(None) is None


def test_a_policy_is_told_by_its_default_version_and_by_each() -> None:
    told = wire.policy_json(ACCOUNT, POLICY, SECOND)
    assert (told["policyArn"], told["policyDocument"], told["defaultVersionId"]) == (f"{ARN}policy/p", "{}", "2")
    assert wire.policy_version_json(ACCOUNT, POLICY, SECOND)["isDefaultVersion"] is True
    assert wire.policy_version_json(ACCOUNT, POLICY, THIRD)["isDefaultVersion"] is False
    listed = wire.policy_versions_json(POLICY, [THIRD, SECOND])["policyVersions"]
    assert [(one["versionId"], one["isDefaultVersion"]) for one in listed] == [("3", False), ("2", True)]


def test_a_key_pair_is_pem_of_one_key() -> None:
    key = an_rsa_key()
    assert isinstance(key, rsa.RSAPrivateKey)
    pair = wire.key_pair_json(key)
    assert pair["PrivateKey"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    again = load_pem_private_key(pair["PrivateKey"].encode(), None)
    assert isinstance(again, rsa.RSAPrivateKey)
    assert again.private_numbers() == key.private_numbers()


@pytest.mark.parametrize("body", [b"[", b"\xff", b"[]", b'{"templateName": 5}', b"[" * 100_000])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_body(body, wire.RegistrationConfig)


def test_no_body_is_an_empty_object() -> None:
    assert wire.parse_body(b"", wire.RegistrationConfig) == wire.RegistrationConfig()
