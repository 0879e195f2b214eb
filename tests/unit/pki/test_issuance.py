from datetime import timedelta

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki import certificate_profiles
from birthmark.pki.ca_possession_proof import (
    PossessionCodeMismatchError,
    PossessionSignatureError,
    check_possession,
    prove_possession,
)
from birthmark.pki.certs_only_cms import CmsInvalidError, parse_certs_only, render_certs_only
from birthmark.pki.crl_encoder import Revocation, RevocationReason, build_crl
from birthmark.pki.issuance import IssuerExpiredError, IssuerNotBegunError, new_serial
from birthmark.pki.names_and_registration_ids import (
    CommonNameInvalidError,
    RegistrationIdInvalidError,
    name_of,
    parse_registration_id,
)
from support.fakes import NOON, SeededEntropy
from support.pki.pki_builders import Holder, a_ca, a_device, a_key

ROOT = a_ca()
DEVICE = a_device(ROOT)
EMPTY_BAG = cms.ContentInfo(
    {
        "content_type": "signed_data",
        "content": cms.SignedData(
            {
                "version": "v1",
                "digest_algorithms": [],
                "encap_content_info": {"content_type": "data"},
                "signer_infos": [],
            }
        ),
    }
).dump()


def test_a_device_certificate_is_for_client_authentication_and_nothing_else() -> None:
    parsed = DEVICE.certificate.parsed
    assert parsed.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert parsed.extensions.get_extension_for_class(x509.BasicConstraints).critical
    purposes = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert DEVICE.certificate.extensions.authority_key_id == ROOT.certificate.extensions.subject_key_id


def test_a_certificate_is_valid_a_little_before_it_was_made() -> None:
    assert DEVICE.certificate.not_before == NOON - timedelta(minutes=5)
    assert DEVICE.certificate.not_after == NOON + timedelta(days=1)


def test_a_certificate_of_seconds_is_hardly_backdated() -> None:
    short = a_device(ROOT, lifetime=timedelta(seconds=20)).certificate
    assert short.not_before == NOON - timedelta(seconds=2)


def test_a_certificate_never_outlives_its_issuer() -> None:
    below = a_ca("Short", parent=ROOT, profile=certificate_profiles.ISSUING_CA, lifetime=timedelta(hours=1))
    assert a_device(below).certificate.not_after == below.certificate.not_after


def test_an_expired_issuer_signs_nothing() -> None:
    below = a_ca("Short", parent=ROOT, profile=certificate_profiles.ISSUING_CA, lifetime=timedelta(hours=1))
    with pytest.raises(IssuerExpiredError):
        a_device(below, now=NOON + timedelta(hours=2))


def test_what_would_end_before_its_issuer_begins_is_not_signed() -> None:
    """The clock was ahead when the CA was made: the server ended in a traceback."""
    with pytest.raises(IssuerNotBegunError):
        a_device(ROOT, now=ROOT.certificate.not_before - timedelta(days=2), lifetime=timedelta(days=1))
    begun = a_device(ROOT, now=ROOT.certificate.not_before - timedelta(hours=2), lifetime=timedelta(days=1))
    assert begun.certificate.not_before == ROOT.certificate.not_before


def test_only_a_server_gets_host_names() -> None:
    names = (x509.DNSName("hub.example"),)
    assert a_device(ROOT, san=names).certificate.extensions.subject_alt_name is None
    server = a_device(ROOT, "hub.example", profile=certificate_profiles.SERVER, san=names)
    assert server.certificate.extensions.subject_alt_name == b"\x30\x0d\x82\x0bhub.example"


def test_a_private_key_is_not_in_the_repr() -> None:
    assert "private_key" not in repr(ROOT.as_issuer)


@given(st.integers())
def test_serial_numbers_are_positive_and_short_enough(seed: int) -> None:
    serial = new_serial(SeededEntropy(seed))
    assert 0 < serial < 2**127


@given(st.lists(st.sampled_from([ROOT, DEVICE, a_device(ROOT, "two")]), min_size=1, unique_by=id))
def test_a_bag_of_certificates_survives_the_wire(holders: list[Holder]) -> None:
    certificates = {holder.certificate for holder in holders}
    assert set(parse_certs_only(render_certs_only(certificates))) == certificates


@given(st.binary(max_size=300))
def test_any_bytes_are_a_bag_of_certificates_or_a_refusal(data: bytes) -> None:
    with pytest.raises(CmsInvalidError):
        parse_certs_only(data)


def test_an_empty_bag_is_refused() -> None:
    with pytest.raises(CmsInvalidError):
        parse_certs_only(EMPTY_BAG)


def test_whoever_has_the_key_of_a_ca_can_prove_it() -> None:
    proof = prove_possession(
        "CODE42", ROOT.as_issuer, a_key().public_key(), serial=7, now=NOON, lifetime=timedelta(hours=1)
    )
    check_possession(proof, ROOT.certificate, "CODE42", NOON)
    with pytest.raises(PossessionCodeMismatchError):
        check_possession(proof, ROOT.certificate, "CODE43", NOON)
    with pytest.raises(PossessionSignatureError):
        check_possession(proof, a_ca().certificate, "CODE42", NOON)


def test_where_the_root_signed_for_a_ca_below_it_the_fix_signs_with_that_one() -> None:
    below = a_ca("Issuing", parent=ROOT)
    proof = prove_possession(
        "CODE42", ROOT.as_issuer, a_key().public_key(), serial=7, now=NOON, lifetime=timedelta(hours=1)
    )
    with pytest.raises(PossessionSignatureError) as refused:
        check_possession(proof, below.certificate, "CODE42", NOON)
    assert "verify-possession CODE42 --with issuing --dir ca" in refused.value.explain_fix()


def test_a_revocation_list_names_serial_and_reason_and_is_signed() -> None:
    revocations = [
        Revocation(5, NOON, RevocationReason.KEY_COMPROMISE),
        Revocation(6, NOON),
    ]
    der = build_crl(ROOT.as_issuer, revocations, number=3, now=NOON, lifetime=timedelta(days=7))
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(ROOT.private_key.public_key())
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
    entry = crl.get_revoked_certificate_by_serial_number(5)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    plain = crl.get_revoked_certificate_by_serial_number(6)
    assert plain is not None
    assert not list(plain.extensions)


@given(st.text())
def test_a_registration_id_is_lower_case_or_refused(text: str) -> None:
    try:
        parsed = parse_registration_id(text)
    except RegistrationIdInvalidError:
        return
    assert parsed == text.lower()
    assert parse_registration_id(parsed) == parsed


@pytest.mark.parametrize("text", ["", "ends-with.", "a b", "me@pump", "x" * 129, "ü", "\u212a", "a\n"])
def test_ids_that_dps_does_not_take_are_refused(text: str) -> None:
    with pytest.raises(RegistrationIdInvalidError):
        parse_registration_id(text)


def test_a_long_name_is_refused_and_not_cut() -> None:
    assert name_of("x" * 64)
    with pytest.raises(CommonNameInvalidError):
        name_of("x" * 65)
