"""What is cut out of a certificate is what the library reads, or nothing."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import (
    Certificate,
    CertificateInvalidError,
    CertificateTooLargeError,
    parse_der,
    parse_with_library,
)
from birthmark.pki.fast_certificate_parser import P256_SPKI, is_signed_with, parse_leaf, parse_plain, text_of_plain
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device, a_key

ISSUER = a_ca("Signer")
DEVICE = a_device(ISSUER, "device-1", key=a_key()).certificate


def test_the_plain_case_is_cut_as_the_library_reads_it() -> None:
    seen = parse_leaf(DEVICE.der)
    assert seen is not None
    assert seen.common_name == DEVICE.subject_cn
    assert P256_SPKI + seen.point == DEVICE.spki_der
    assert seen.issuer_der == DEVICE.issuer_der
    assert is_signed_with(seen, ISSUER.private_key.public_key())  # type: ignore[arg-type]  # the builders make P-256
    assert not is_signed_with(seen, a_key().public_key())


def test_a_ca_is_left_to_the_library() -> None:
    assert parse_leaf(ISSUER.certificate.der) is None
    assert parse_leaf(a_ca("Below", parent=ISSUER, profile=certificate_profiles.ISSUING_CA).certificate.der) is None


def a_certificate_of(*subject: tuple[str, str]) -> bytes:
    """A certificate of the signer's whose subject has these attributes, by OID."""
    name = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(oid), text) for oid, text in subject])
    made = x509.CertificateBuilder(
        ISSUER.certificate.subject, name, a_key().public_key(), 5, NOON, NOON.replace(year=2040)
    )
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return made.sign(ISSUER.private_key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param([("1.2.6.3.85.4.3", "sn0123")], id="a type that ends like the one of common names"),
        pytest.param([("2.5.4.10", "\x06\x03U\x04\x03\x0c\x06sn0123")], id="a value that reads like type and name"),
        pytest.param(
            [("2.5.4.10", "1\x0f0\r\x06\x03U\x04\x03\x0c\x06sn0123")], id="a value that reads like a whole one"
        ),
        pytest.param([("2.5.4.3", "sn0123"), ("2.5.4.3", "sn0124")], id="two common names"),
    ],
)
def test_what_only_reads_like_a_common_name_is_left_to_the_library(subject: list[tuple[str, str]]) -> None:
    assert parse_leaf(a_certificate_of(*subject)) is None


def test_a_common_name_is_found_among_other_attributes() -> None:
    seen = parse_leaf(a_certificate_of(("2.5.4.10", "\x06\x03U\x04\x03\x0c\x06sn0123"), ("2.5.4.3", "sn0124")))
    assert seen is not None
    assert seen.common_name == "sn0124"


def replaced(place: str, by: bytes) -> bytes:
    """The device's certificate with other bytes in a place, where no length changes."""
    parsed, der = x509.load_der_x509_certificate(DEVICE.der), DEVICE.der
    serial = parsed.serial_number.to_bytes((parsed.serial_number.bit_length() + 8) // 8)
    at = {"serial": der.index(serial), "date": der.index(b"\x17\x0d") + 4, "key": der.index(P256_SPKI) + len(P256_SPKI)}
    return der[: at[place]] + by + der[at[place] + len(by) :]


@pytest.mark.parametrize(
    ("place", "by"),
    [
        ("serial", b"\x80"),
        ("serial", b"\x00\x01"),
        ("date", b"1301"),
        ("date", b"0230"),
        ("date", b"ab"),
        ("key", bytes(9)),
    ],
)
def test_what_the_library_refuses_is_left_to_it(place: str, by: bytes) -> None:
    assert replaced(place, DEVICE.der[:0]) == DEVICE.der
    assert parse_leaf(replaced(place, by)) is None


def test_a_length_in_more_bytes_than_it_needs_is_left_to_the_library() -> None:
    der = DEVICE.der
    longer = (int.from_bytes(der[2:4]) + 1).to_bytes(3)
    assert parse_leaf(der[:1] + b"\x83" + longer + der[4:]) is None


@given(st.integers(min_value=0, max_value=len(DEVICE.der) - 1), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_seen_by_the_signature_or_by_the_reader(place: int, change: int) -> None:
    changed = bytearray(DEVICE.der)
    changed[place] ^= change
    seen = parse_leaf(bytes(changed))
    if seen is not None:
        assert not is_signed_with(seen, ISSUER.private_key.public_key())  # type: ignore[arg-type]  # as above


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=len(DEVICE.der)))
def test_any_bytes_are_cut_or_left(data: bytes, cut: int) -> None:
    for candidate in (data, DEVICE.der[:cut] + data):
        seen = parse_leaf(candidate)
        if seen is None:
            continue
        try:
            parsed = parse_der(candidate)
        except CertificateInvalidError:
            continue
        assert (seen.common_name, P256_SPKI + seen.point) == (parsed.subject_cn, parsed.spki_der)


def fields_of(certificate: Certificate) -> tuple[object, ...]:
    """All that a parsed certificate promises, as the library reads it."""
    return (
        certificate.extensions,
        certificate.subject_der,
        certificate.issuer_der,
        certificate.spki_der,
        certificate.serial,
        certificate.not_before,
        certificate.not_after,
    )


PLAIN = [
    ISSUER.certificate,
    DEVICE,
    a_ca("Below", parent=ISSUER, profile=certificate_profiles.ISSUING_CA).certificate,
    a_device(ISSUER, "OCSP", profile=certificate_profiles.OCSP).certificate,
]


@pytest.mark.parametrize("certificate", PLAIN[:3], ids=lambda one: one.subject_text)
def test_a_plain_certificate_is_parsed_as_the_library_does(certificate: Certificate) -> None:
    assert parse_plain(certificate.der) == fields_of(parse_with_library(certificate.der))


@given(
    st.sampled_from(PLAIN),
    st.lists(st.tuples(st.integers(min_value=0, max_value=700), st.integers(min_value=0, max_value=255)), max_size=3),
)
def test_what_is_plain_is_what_the_library_reads(certificate: Certificate, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(certificate.der)
    for place, byte in changes:
        changed[place % len(changed)] = byte
    check_plain(bytes(changed))


def check_plain(der: bytes) -> None:
    """Compare both parsers."""
    plain = parse_plain(der)
    if plain is not None:
        by_library = parse_with_library(der)
        assert plain == fields_of(by_library)
        assert by_library.version == 3
        for encoded, name in ((plain.subject, by_library.parsed.subject), (plain.issuer, by_library.parsed.issuer)):
            assert text_of_plain(encoded) in {"", name.rfc4514_string()}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ([("2.5.4.3", "pump-1")], "CN=pump-1"),
        (
            [("2.5.4.6", "US"), ("2.5.4.10", "A: b/c_d"), ("2.5.4.5", "7"), ("2.5.4.3", "x.y")],
            "CN=x.y,2.5.4.5=7,O=A: b/c_d,C=US",
        ),
        ([("2.5.4.3", "a,b")], ""),
        ([("2.5.4.3", "#a")], ""),
        ([("2.5.4.3", "a ")], ""),
        ([("2.5.4.3", "\u00e4")], ""),
        ([("1.2.840.113549.1.9.1", "a@example.com")], ""),
    ],
)
def test_a_plain_name_has_the_text_of_the_library(attributes: list[tuple[str, str]], text: str) -> None:
    name = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes])
    assert text_of_plain(name.public_bytes()) == text
    assert text in {"", name.rfc4514_string()}


def a_certificate_with_long_name(*, is_of_issuer: bool) -> bytes:
    """A self-made certificate with a name of more parts than any CA writes."""
    long, short = (
        x509.Name([x509.NameAttribute(x509.ObjectIdentifier("2.5.4.11"), "unit" * 8)] * count) for count in (60, 1)
    )
    names = (long, short) if is_of_issuer else (short, long)
    made = x509.CertificateBuilder(*names, a_key().public_key(), 5, NOON, NOON.replace(year=2040))
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return made.sign(ISSUER.private_key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("is_of_issuer", [False, True])
def test_a_name_of_many_parts_is_not_plain(is_of_issuer: bool) -> None:
    der = a_certificate_with_long_name(is_of_issuer=is_of_issuer)
    assert parse_plain(der) is None
    with pytest.raises(CertificateTooLargeError):
        parse_der(der)
