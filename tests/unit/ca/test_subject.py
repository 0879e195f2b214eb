"""A device's subject: its name, where it stands, what the operator says; nothing that it claims."""

from cryptography import x509
from cryptography.x509.oid import NameOID

from birthmark.ca.rules.certificate_name_policy import granted_subject

ASKED = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Somebody Else"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "admins"),
        x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "ZH"),
        x509.NameAttribute(NameOID.LOCALITY_NAME, "Zurich"),
        x509.NameAttribute(NameOID.TITLE, "operator"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, "7"),
        x509.NameAttribute(NameOID.COMMON_NAME, "device-1"),
    ]
)


def test_name_and_place_are_kept_and_claims_are_not() -> None:
    assert granted_subject(ASKED).rfc4514_string() == "CN=device-1,L=Zurich,ST=ZH,C=CH"


def test_the_operator_says_what_stands_for_every_device() -> None:
    granted = granted_subject(ASKED, {"O": "Example", "L": "Bern"})
    assert granted.rfc4514_string() == "CN=device-1,ST=ZH,C=CH,L=Bern,O=Example"


def test_a_subject_that_was_granted_is_granted_again_unchanged() -> None:
    granted = granted_subject(ASKED)
    assert granted_subject(granted) == granted
