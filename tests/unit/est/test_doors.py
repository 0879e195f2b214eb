"""What a door gives to whom: who is a stranger there, and by which rule an expired certificate counts at it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.model import IssuedCertificate
from birthmark.est.model import CallerProof, EstLabel, LateRenewalRule
from birthmark.est.rules.csr_attributes_and_template import KeyEncryptionUnsupportedError, request_for_key
from birthmark.est.rules.label_certificate_acceptance import is_unknown_at, late_renewal_at
from birthmark.est.rules.late_renewal import GracePeriodExpiredError
from birthmark.pki.certificate_profiles import EDGE_CA
from birthmark.pki.csr import parse_csr
from birthmark.pki.path_validation import CertificateExpiredError
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key

DAY = timedelta(days=1)
ISSUED = IssuedCertificate(a_device(a_ca(), lifetime=DAY).certificate, "device-1", "device", "est_user:a")
LAX, STRICT = LateRenewalRule(30 * DAY), LateRenewalRule(2 * DAY, approval=True)
OF_DEVICES, OF_CAS = EstLabel(), EstLabel(profile=EDGE_CA)
LATE = NOON + 2 * DAY


def a_proof(kind: PrincipalKind = PrincipalKind.DEVICE, issued: IssuedCertificate | None = ISSUED) -> CallerProof:
    return CallerProof(Principal(kind, "device-1"), late_renewal=LAX, issued=issued)


def test_at_the_door_of_its_own_profile_its_own_rule_counts() -> None:
    assert late_renewal_at(OF_DEVICES, a_proof(), {}, LATE) == LAX
    assert late_renewal_at(OF_CAS, replace(a_proof(), late_renewal=None), {}, LATE) is None, "it is alive"


def test_at_another_door_the_stricter_of_both_rules_counts() -> None:
    assert late_renewal_at(OF_CAS, a_proof(), {EDGE_CA.name: STRICT}, LATE) == STRICT
    with pytest.raises(GracePeriodExpiredError):
        late_renewal_at(OF_CAS, a_proof(), {EDGE_CA.name: STRICT}, NOON + 4 * DAY)
    with pytest.raises(CertificateExpiredError):
        late_renewal_at(OF_CAS, a_proof(), {}, LATE)


@pytest.mark.parametrize(
    ("kind", "door", "is_unauthenticated"),
    [
        (PrincipalKind.EST_USER, OF_DEVICES, True),
        (PrincipalKind.BOOTSTRAP, OF_DEVICES, True),
        (PrincipalKind.DEVICE, OF_DEVICES, False),
        (PrincipalKind.DEVICE, OF_CAS, True),
        (PrincipalKind.AUTHORITY, OF_CAS, False),
    ],
)
def test_a_stranger_is_who_has_not_what_the_door_gives(
    kind: PrincipalKind, door: EstLabel, *, is_unauthenticated: bool
) -> None:
    assert is_unknown_at(door, a_proof(kind)) is is_unauthenticated


def test_a_server_made_key_takes_the_place_of_the_clients_and_what_it_was_asked_with_is_forgotten() -> None:
    asked, key = parse_csr(a_csr("pump")), a_key().public_key()
    made = request_for_key(replace(asked, challenge_password="once"), key)
    assert (made.public_key, made.subject, made.challenge_password) == (key, asked.subject, None)
    assert made.spki_der != asked.spki_der


def test_a_key_that_is_to_come_encrypted_is_refused_with_a_request_that_is_not() -> None:
    asked = replace(parse_csr(a_csr("pump")), key_encryption="DecryptKeyIdentifier")
    with pytest.raises(KeyEncryptionUnsupportedError) as refused:
        request_for_key(asked, a_key().public_key())
    assert "DecryptKeyIdentifier" in refused.value.explain_cause()
    assert "-subj /CN=pump" in refused.value.explain_fix()
