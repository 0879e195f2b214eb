"""Compressed certificates: read, written, and whole again."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.certificates import CertificateInvalidError
from birthmark.secure_elements.atecc.certificate_rebuild import (
    SIGNER,
    TNGTLS,
    TNGTLS_OLD,
    TRUSTFLEX,
    ChipCertificateTemplate,
    TemplateSubject,
    key_id,
    signed_part,
    whole,
)
from birthmark.secure_elements.atecc.compressed_certificate import (
    NO_END,
    CompressedCertificate,
    build_compressed,
    parse_compressed,
)

START = datetime(2000, 1, 1, tzinfo=UTC)
HOURS = st.integers(0, 32 * 365 * 24).map(lambda hours: START + timedelta(hours=hours))
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
POINT = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
SERIAL = bytes.fromhex("0123f2408ea1fcf201")


def made(issued: datetime = NOON, years: int = 28, template: int = 3) -> CompressedCertificate:
    return build_compressed(bytes(range(64)), issued, years, b"\x2a\x00", template=template, chain=0)


@given(HOURS.filter(lambda when: (when.month, when.day) != (2, 29)), st.integers(0, 31), st.binary(min_size=69))
def test_what_is_written_is_read(issued: datetime, years: int, chance: bytes) -> None:
    template, chain = chance[66] >> 4, chance[66] & 15
    short = build_compressed(chance[:64], issued, years, chance[64:66], template=template, chain=chain)
    assert len(short.render()) == 72
    assert parse_compressed(short.render()) == short


@given(st.binary(max_size=80))
def test_any_bytes_are_a_certificate_or_refused(raw: bytes) -> None:
    try:
        short = parse_compressed(raw)
    except CertificateInvalidError:
        return
    assert short.render() == raw


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=3, max_size=3), st.binary(min_size=3, max_size=3))
def test_bytes_of_todays_format_come_out_as_they_went_in(signature: bytes, dates: bytes, rest: bytes) -> None:
    raw = signature + dates + rest + b"\xa0\x00"
    try:
        assert parse_compressed(raw).render() == raw
    except CertificateInvalidError:
        return


@pytest.mark.parametrize("raw", [b"", bytes(72), b"\xff" * 72, bytes(71)])
def test_a_blank_slot_is_no_certificate(raw: bytes) -> None:
    with pytest.raises(CertificateInvalidError):
        parse_compressed(raw)


def test_a_newer_format_is_refused_and_not_guessed() -> None:
    raw = bytearray(made().render())
    raw[70] |= 1
    with pytest.raises(CertificateInvalidError, match="format is 1"):
        parse_compressed(bytes(raw))


def test_no_years_are_no_end() -> None:
    assert made(years=0).ends == NO_END
    assert made(years=28).ends == datetime(2053, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "issued", [NOON.replace(minute=1), datetime(2032, 1, 1, tzinfo=UTC), NOON.replace(tzinfo=None)]
)
def test_dates_that_have_no_room_are_refused(issued: datetime) -> None:
    with pytest.raises(CertificateInvalidError):
        made(issued)


@pytest.mark.parametrize("template", [SIGNER, TNGTLS, TNGTLS_OLD, TRUSTFLEX])
def test_the_whole_certificate_is_one_that_openssl_reads_and_whose_signature_holds(
    template: ChipCertificateTemplate,
) -> None:
    subject = TemplateSubject(POINT, SERIAL, "0004A3000000")
    body = signed_part(template, made(), subject, key_id(POINT))
    r, s = decode_dss_signature(KEY.sign(body, ec.ECDSA(hashes.SHA256())))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    short = build_compressed(raw, NOON, 28, b"\x2a\x00", template=3, chain=0)
    parsed = x509.load_der_x509_certificate(whole(template, short, subject, key_id(POINT)))
    assert parsed.tbs_certificate_bytes == body
    KEY.public_key().verify(parsed.signature, parsed.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    assert parsed.not_valid_before_utc == NOON
    assert ("2A00" if template is SIGNER else SERIAL.hex().upper()) in parsed.subject.rfc4514_string()


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=9), st.text("0123456789ABCDEF", max_size=12))
def test_whatever_the_chip_says_the_certificate_is_whole_der(point: bytes, serial: bytes, eui48: str) -> None:
    from asn1crypto.x509 import Certificate

    der = whole(TNGTLS, made(), TemplateSubject(point, serial, eui48), bytes(20))
    assert Certificate.load(der, strict=True).dump() == der


def test_another_source_of_serial_numbers_is_refused() -> None:
    raw = bytearray(made().render())
    raw[70] = 0x00
    with pytest.raises(CertificateInvalidError, match="source 0"):
        whole(TNGTLS, parse_compressed(bytes(raw)), TemplateSubject(POINT, SERIAL), bytes(20))
