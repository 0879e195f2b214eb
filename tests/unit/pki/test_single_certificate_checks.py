"""What a certificate must be by itself, before any signature is looked at."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from birthmark.pki.certificates import parse_der
from birthmark.pki.extension_parser import CLIENT_AUTH, SERVER_AUTH
from birthmark.pki.path_validation import (
    MAX_NEW_SIGNATURES,
    SignatureCache,
    Signatures,
    TooMuchWorkError,
    build_chain,
    decide_in_steps,
)
from birthmark.pki.single_certificate_checks import (
    CertificateNonconformingError,
    KeyStrengthError,
    WrongPurposeError,
    check_client,
    check_strength,
)
from support.fakes import NOON
from support.pki.odd_certificates import ODD_EXTENSIONS, a_certificate, a_root, anchors, usage, with_extension
from support.pki.pki_builders import Holder, a_burdensome_key, a_device, a_key

CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)


def test_a_device_certificate_is_good_for_a_client() -> None:
    check_client(a_device().certificate)
    check_client(a_certificate().certificate)  # it says nothing of what it is for


@pytest.mark.parametrize("bits", [1024, 1536])
def test_a_weak_rsa_key_is_refused(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits)
    with pytest.raises(KeyStrengthError) as refusal:
        check_strength(a_certificate(key=key).certificate)
    assert str(bits) in refusal.value.explain_cause()


def test_a_key_whose_signatures_are_a_burden_to_check_is_refused() -> None:
    with pytest.raises(KeyStrengthError) as refusal:
        check_strength(a_certificate(key=a_burdensome_key()).certificate)
    assert "an exponent of 2041" in refusal.value.explain_cause()


@pytest.mark.parametrize(
    "make", [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP384R1())]
)
def test_strong_keys_are_taken(make: object) -> None:
    check_strength(a_certificate(key=make()).certificate)  # type: ignore[operator]  # keys of every kind, weak ones too


def test_a_kind_of_key_that_tls_does_not_use_is_refused() -> None:
    key = dsa.generate_private_key(2048)
    with pytest.raises(KeyStrengthError):
        check_strength(a_certificate(key=key).certificate)  # type: ignore[arg-type]  # keys of every kind, weak ones too


@pytest.mark.parametrize(
    ("purpose", "critical"), [(ExtendedKeyUsageOID.SERVER_AUTH, False), (ExtendedKeyUsageOID.CODE_SIGNING, True)]
)
def test_a_certificate_for_another_purpose_is_refused(purpose: x509.ObjectIdentifier, critical: bool) -> None:
    with pytest.raises(WrongPurposeError):
        check_client(a_certificate((x509.ExtendedKeyUsage([purpose]), critical)).certificate)


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_a_certificate_for_clients_or_for_anything_is_taken(purpose: x509.ObjectIdentifier) -> None:
    check_client(a_certificate((x509.ExtendedKeyUsage([purpose]), True)).certificate)


def test_a_key_that_may_not_sign_proves_no_client() -> None:
    with pytest.raises(WrongPurposeError):
        check_client(a_certificate(CLIENT, (usage("key_agreement"), True)).certificate)


def test_a_ca_is_no_device_unless_its_self_signed_certificate_was_put_on_record() -> None:
    ca = a_certificate(is_ca=True).certificate
    with pytest.raises(WrongPurposeError):
        check_client(ca)
    check_client(ca, is_pinned=True)
    below = a_certificate(signer=a_root(), is_ca=True).certificate
    with pytest.raises(WrongPurposeError):
        check_client(below, is_pinned=True)


NONCONFORMING = {
    "a serial number of 21 octets": lambda: a_certificate(serial=1 << 160),
    "no purpose named": lambda: a_certificate(
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.37"), b"\x30\x00"), False)
    ),
    "certificates signed by no CA": lambda: a_certificate(
        (usage("digital_signature", "key_cert_sign"), True), is_ca=False
    ),
    "constraints in a leaf": lambda: a_certificate((x509.NameConstraints([x509.DNSName("a.example")], None), True)),
    "no subject, names not critical": lambda: a_certificate(
        (x509.SubjectAlternativeName([x509.DNSName("a")]), False), subject=None
    ),
}


@pytest.mark.parametrize("what", NONCONFORMING)
def test_what_no_issuer_may_write_is_refused(what: str) -> None:
    with pytest.raises(CertificateNonconformingError):
        check_client(NONCONFORMING[what]().certificate)


def chain_of(leaf: Holder, *above: Holder) -> None:
    build_chain(leaf.certificate, anchors(*above[:-1]), anchors(above[-1]), NOON, allow_partial=True)


def test_a_ca_that_does_not_name_its_keys_is_refused() -> None:
    root = a_root()
    nameless = a_certificate(subject="Sub", signer=root, is_ca=True, names_keys=False)
    with pytest.raises(CertificateNonconformingError):
        chain_of(a_certificate(signer=nameless), nameless, root)
    chain_of(a_certificate(signer=root, names_keys=False), root)  # openssl's leaves often do not


def test_constraints_that_are_not_critical_are_refused() -> None:
    root = a_root((x509.NameConstraints([x509.DNSName("example")], None), False))
    with pytest.raises(CertificateNonconformingError):
        chain_of(a_certificate(signer=root), root)


def test_a_chain_is_for_a_purpose_when_asked() -> None:
    root = a_root()
    leaf = a_certificate(CLIENT, signer=root)
    build_chain(leaf.certificate, [], anchors(root), NOON, purpose=CLIENT_AUTH)
    with pytest.raises(WrongPurposeError):
        build_chain(leaf.certificate, [], anchors(root), NOON, purpose=SERVER_AUTH)


def test_a_bag_of_namesakes_costs_a_bounded_number_of_signatures() -> None:
    def namesake(serial: int) -> Holder:
        return a_certificate(subject="Same Name", key=a_key(), serial=serial, is_ca=True, names_keys=False)

    leaf = a_certificate(signer=namesake(1), names_keys=False)
    signatures = Signatures(SignatureCache())
    with pytest.raises(TooMuchWorkError):
        build_chain(leaf.certificate, anchors(*map(namesake, range(2, 34))), [], NOON, cache=signatures)
    assert len(signatures.cache._verdicts) == MAX_NEW_SIGNATURES


def test_a_key_that_is_not_accepted_vouches_for_nobody() -> None:
    cache, weak, strong = SignatureCache(), a_root(key=rsa.generate_private_key(65537, 1024)), a_root()
    assert cache.is_signed_by(a_certificate(signer=strong).certificate, strong.certificate)
    assert not cache.is_signed_by(a_certificate(signer=weak).certificate, weak.certificate)


@pytest.mark.parametrize("what", ODD_EXTENSIONS)
def test_an_odd_but_legal_extension_is_read_over(what: str) -> None:
    oid, value = ODD_EXTENSIONS[what]
    certificate = with_extension(oid, value).certificate
    assert parse_der(certificate.der) == certificate
    check_client(certificate)


def test_a_decision_looks_at_one_new_signature_at_a_step_and_at_none_that_is_known() -> None:
    root = a_certificate(subject="Root", key=a_key(), is_ca=True)
    middle = a_certificate(subject="Middle", key=a_key(), is_ca=True, signer=root)
    leaf, cache = a_certificate(signer=middle).certificate, SignatureCache()

    def decide(signatures: Signatures) -> int:
        return len(build_chain(leaf, anchors(middle), anchors(root), NOON, cache=signatures))

    assert [len(cache._verdicts) for _ in decide_in_steps(decide, cache)] == [0, 1, 2]
    assert len(cache._verdicts) == 3
    with pytest.raises(StopIteration) as end:
        next(decide_in_steps(decide, cache))
    assert end.value.value == 3


def test_a_bag_of_namesakes_costs_no_more_in_steps() -> None:
    def namesake(serial: int) -> Holder:
        return a_certificate(subject="Same Name", key=a_key(), serial=serial, is_ca=True, names_keys=False)

    leaf, cache = a_certificate(signer=namesake(1), names_keys=False).certificate, SignatureCache()
    bag = anchors(*map(namesake, range(2, 34)))
    with pytest.raises(TooMuchWorkError):
        list(decide_in_steps(lambda signatures: build_chain(leaf, bag, [], NOON, cache=signatures), cache))
    assert len(cache._verdicts) == MAX_NEW_SIGNATURES
