import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.csr import (
    CHANGE_SUBJECT_NAME,
    CsrExtensionRefusedError,
    CsrHashRefusedError,
    CsrKeySizeRefusedError,
    CsrKeyTypeRefusedError,
    CsrMalformedError,
    CsrRefusedError,
    CsrSignatureInvalidError,
    CsrSubjectInvalidError,
    CsrTooLargeError,
    parse_csr,
)
from birthmark.pki.issuance import SigningKey
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.single_certificate_checks import has_roca_pattern
from support.pki.pki_builders import a_csr, a_key, an_rsa_key

CSR = a_csr("device-1")
OLD_RSA = an_rsa_key(1024)
# cryptography no longer signs with SHA-1: made by `openssl req -new -sha1` (P-256, CN=old-hash).
SHA1_CSR = base64.b64decode(
    "MIHLMHUCAQAwEzERMA8GA1UEAwwIb2xkLWhhc2gwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASaCHarvDdzSi8K/iiqxCy6yHDz"
    "TokTjos3BuHwHvh9QUeIYDuplTkSG5TQ8k70+C34HATNdyxh/7z0Zff/XG89oAAwCQYHKoZIzj0EAQNHADBEAiB58f0x4Dr/kqFa"
    "Y+u3H6JuKzO5ZPVRKKnwmaL/VgpHCwIgJSU42/p5jmfjYDjvpmhhAhJm1RoQGVTFGtV7/zOr+hY="
)


def test_a_request_shows_name_and_key() -> None:
    key = a_key()
    request = parse_csr(a_csr("device-9", key=key))
    assert request.subject_cn == "device-9"
    assert request.public_key.public_numbers() == key.public_key().public_numbers()
    assert not request.wants_ca


@pytest.mark.parametrize("key", [a_key(), ec.generate_private_key(ec.SECP384R1()), an_rsa_key(2048)])
def test_name_and_key_are_known_as_a_certificate_has_them(key: SigningKey) -> None:
    request = parse_csr(a_csr("device-1", key=key))
    assert request.subject_der == name_of("device-1").public_bytes()
    assert request.spki_der == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_what_a_request_asks_for_is_visible() -> None:
    request = parse_csr(
        a_csr(
            extensions=(
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (x509.SubjectAlternativeName([x509.DNSName("a.example")]), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True),
                (x509.PolicyConstraints(0, None), False),
            ),
            attributes=((AttributeOID.CHALLENGE_PASSWORD, b"c2VjcmV0"), (CHANGE_SUBJECT_NAME, b"\x30\x00")),
        )
    )
    assert request.wants_ca
    assert request.subject_alt_name == b"\x30\x0b\x82\x09a.example"
    assert request.challenge_password == "c2VjcmV0"
    assert request.change_subject_name == b"\x30\x00"
    assert "c2VjcmV0" not in repr(request)


def test_a_request_signed_by_another_key_is_refused() -> None:
    with pytest.raises(CsrSignatureInvalidError):
        parse_csr(CSR[:-1] + bytes([CSR[-1] ^ 1]))


def test_curves_that_clouds_do_not_take_are_refused() -> None:
    parse_csr(a_csr(key=ec.generate_private_key(ec.SECP384R1()), algorithm=hashes.SHA384()))
    with pytest.raises(CsrKeyTypeRefusedError) as refusal:
        parse_csr(a_csr(key=ec.generate_private_key(ec.SECP521R1())))
    assert "secp521r1" in refusal.value.explain_cause()


def test_other_kinds_of_keys_are_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder(subject_name=name_of("device-1"))
    csr = builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER)
    with pytest.raises(CsrKeyTypeRefusedError):
        parse_csr(csr)


def test_rsa_keys_have_2048_to_4096_bits_and_the_usual_exponent() -> None:
    parse_csr(a_csr(key=an_rsa_key()))
    with pytest.raises(CsrKeySizeRefusedError):
        parse_csr(a_csr(key=OLD_RSA))
    with pytest.raises(CsrKeySizeRefusedError):
        parse_csr(a_csr(key=rsa.generate_private_key(3, 2048)))


def test_old_hashes_are_refused() -> None:
    with pytest.raises(CsrHashRefusedError):
        parse_csr(SHA1_CSR)


def test_a_request_needs_a_usable_subject() -> None:
    empty = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    with pytest.raises(CsrSubjectInvalidError):
        parse_csr(empty.sign(a_key(), hashes.SHA256()).public_bytes(Encoding.DER))
    with pytest.warns(UserWarning, match="length"):
        too_long = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 65, _validate=False)])
    builder = x509.CertificateSigningRequestBuilder(subject_name=too_long)
    with pytest.raises(CsrSubjectInvalidError):
        parse_csr(builder.sign(a_key(), hashes.SHA256()).public_bytes(Encoding.DER))


def test_an_unknown_critical_extension_is_refused_and_named() -> None:
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    with pytest.raises(CsrExtensionRefusedError) as refusal:
        parse_csr(a_csr(extensions=((unknown, True),)))
    assert "1.2.3.4" in refusal.value.explain_cause()


def test_an_oversized_request_is_refused() -> None:
    with pytest.raises(CsrTooLargeError):
        parse_csr(b"\x30" * 40000)


def test_a_subject_of_hundreds_of_parts_is_refused_before_they_are_read() -> None:
    many = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{number}") for number in range(300)])
    request = x509.CertificateSigningRequestBuilder(subject_name=many).sign(a_key(), hashes.SHA256())
    with pytest.raises(CsrTooLargeError) as refused:
        parse_csr(request.public_bytes(Encoding.DER))
    assert refused.value.explain_cause().startswith("The subject has")


@pytest.mark.parametrize("is_critical", [False, True])
def test_thousands_of_names_are_refused_before_they_are_read(is_critical: bool) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(f"{number}.example") for number in range(2000)])
    with pytest.raises(CsrTooLargeError) as refused:
        parse_csr(a_csr(extensions=((names, is_critical),)))
    assert refused.value.explain_cause().startswith("The subject alternative name has")


def test_a_hundred_names_are_accepted() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(f"service-{number}.plant.example") for number in range(100)])
    assert len(parse_csr(a_csr(extensions=((names, False),))).names) == 100


def test_keys_of_the_broken_generator_are_recognized() -> None:
    product = 11 * 13 * 17 * 19 * 37 * 53 * 61 * 71 * 73 * 79 * 97 * 103 * 107 * 109 * 127 * 151 * 157
    assert has_roca_pattern((7 * product + pow(65537, 12345, product)) * (9 * product + pow(65537, 777, product)))
    assert not has_roca_pattern(OLD_RSA.public_key().public_numbers().n)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    with pytest.raises(CsrMalformedError):
        parse_csr(data)


@given(st.integers(0, len(CSR) - 1), st.integers(0, 255))
def test_a_damaged_request_never_passes(position: int, value: int) -> None:
    if CSR[position] == value:
        return
    with pytest.raises(CsrRefusedError):
        parse_csr(CSR[:position] + bytes([value]) + CSR[position + 1 :])


@pytest.mark.parametrize("name", [" device-1", "device-1 "])
def test_a_name_with_spaces_around_it_looks_like_another_and_is_refused(name: str) -> None:
    with pytest.raises(CsrSubjectInvalidError):
        parse_csr(a_csr(name))
