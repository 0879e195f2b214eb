"""Bit-exact reconstruction of a certificate from its compressed form, as required by its signature.

Templates are data. The layout is shared by Microchip's factory and its tools for your own CA. It has version 3,
organization and common name, a P-256 key, five extensions in a fixed order.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from asn1crypto.algos import DSASignature

from birthmark.pki.certificates import CertificateInvalidError
from birthmark.secure_elements.atecc.compressed_certificate import FROM_KEY_AND_DATES, CompressedCertificate

POINT_BYTES = 64
ROOT_KEY_ID = bytes.fromhex("7aed7d6dc6b7789db23801a5e84a8cb0a40e2a8c")
"""Key identifier of Microchip's "Crypto Authentication Root CA 002"."""
_SEQUENCE, _SET, _INTEGER, _BITS, _OCTETS, _UTF8, _PRINTABLE, _OID, _BOOLEAN = (
    0x30,
    0x31,
    0x02,
    0x03,
    0x04,
    0x0C,
    0x13,
    0x06,
    0x01,
)
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_P256_KEY = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
_ORGANIZATION, _COMMON_NAME, _SERIAL_NUMBER = (bytes.fromhex(f"5504{code}") for code in ("0a", "03", "05"))
_SAN, _BASIC, _USAGE, _SUBJECT_KEY, _ISSUER_KEY = (
    bytes.fromhex(f"551d{code}") for code in ("11", "13", "0f", "0e", "23")
)


@dataclass(frozen=True, slots=True)
class ChipCertificateTemplate:
    """Shared fields of one kind of certificate.

    In names, {serial} is the chip's, {signer} the signer's ID, in hex.
    """

    subject: str
    issuer: str
    is_ca: bool = False
    has_eui48: bool = False
    organization: str = "Microchip Technology Inc"


SIGNER = ChipCertificateTemplate(
    "Crypto Authentication Signer {signer}", "Crypto Authentication Root CA 002", is_ca=True
)
TNGTLS = ChipCertificateTemplate("sn{serial}", "Crypto Authentication Signer {signer}", has_eui48=True)
TRUSTFLEX = ChipCertificateTemplate("sn{serial}", "Crypto Authentication Signer {signer}")
TNGTLS_OLD = ChipCertificateTemplate("{serial} ATECC", "Crypto Authentication Signer {signer}")
TEMPLATES: Mapping[int, ChipCertificateTemplate] = {1: SIGNER, 2: TNGTLS_OLD, 3: TNGTLS}
BY_PRODUCT: Mapping[str, ChipCertificateTemplate] = {"MKMwyhP1": TRUSTFLEX}
"""Templates by product code in the OTP zone.

It distinguishes TrustFLEX, whose template number is also 3.
"""


@dataclass(frozen=True, slots=True)
class TemplateSubject:
    """Fields from the chip: its key and identity."""

    point: bytes
    serial: bytes = b""
    eui48: str = ""


def key_id(point: bytes) -> bytes:
    """Return the key identifier of a public key as in RFC 5280 section 4.2.1.2."""
    return hashlib.sha1(b"\x04" + point, usedforsecurity=False).digest()


def signed_part(
    template: ChipCertificateTemplate, short: CompressedCertificate, subject: TemplateSubject, issuer_key_id: bytes
) -> bytes:
    """Return the signed part (TBSCertificate).

    Raise `CertificateInvalidError` for values outside the template.
    """
    if len(subject.point) != POINT_BYTES:
        raise CertificateInvalidError(detail=f"a public key of {len(subject.point)} bytes")
    if short.serial_source != FROM_KEY_AND_DATES:
        raise CertificateInvalidError(detail=f"its serial number is from source {short.serial_source}")
    names = {"serial": subject.serial.hex().upper(), "signer": short.signer_id.hex().upper()}
    return _tlv(
        _SEQUENCE,
        bytes.fromhex("a003020102"),
        _tlv(_INTEGER, _serial_number(short, subject.point)),
        _ECDSA_SHA256,
        _name(template.organization, template.issuer.format(**names)),
        _validity(short),
        _name(template.organization, template.subject.format(**names)),
        _tlv(_SEQUENCE, _P256_KEY, _tlv(_BITS, b"\0\x04", subject.point)),
        _tlv(0xA3, _tlv(_SEQUENCE, *_extensions(template, subject, issuer_key_id))),
    )


def whole(
    template: ChipCertificateTemplate, short: CompressedCertificate, subject: TemplateSubject, issuer_key_id: bytes
) -> bytes:
    """Return the reconstructed certificate in DER."""
    r, s = (int.from_bytes(half, "big") for half in (short.signature[:32], short.signature[32:]))
    signature = DSASignature({"r": r, "s": s}).dump()
    body = signed_part(template, short, subject, issuer_key_id)
    return _tlv(_SEQUENCE, body, _ECDSA_SHA256, _tlv(_BITS, b"\0", signature))


def _serial_number(short: CompressedCertificate, point: bytes) -> bytes:
    """Return the serial number: a digest of key and dates.

    Its first bits are set for a positive number of full length.
    """
    digest = bytearray(hashlib.sha256(point + short.dates).digest()[:16])
    digest[0] = digest[0] & 0x3F | 0x40
    return bytes(digest)


def _extensions(template: ChipCertificateTemplate, subject: TemplateSubject, issuer_key_id: bytes) -> list[bytes]:
    usage = _extension(_USAGE, bytes.fromhex("03020186" if template.is_ca else "03020388"), is_critical=True)
    basic = _extension(_BASIC, bytes.fromhex("30060101ff020100" if template.is_ca else "3000"), is_critical=True)
    keys = [
        _extension(_SUBJECT_KEY, _tlv(_OCTETS, key_id(subject.point))),
        _extension(_ISSUER_KEY, _tlv(_SEQUENCE, _tlv(0x80, issuer_key_id))),
    ]
    if template.is_ca:
        return [usage, basic, *keys]
    san = []
    if template.has_eui48:  # with an underscore, which is not valid in PrintableString, but used here
        number = _tlv(_PRINTABLE, f"eui48_{subject.eui48}".encode())
        inner = _tlv(_SEQUENCE, _tlv(_SET, _tlv(_SEQUENCE, _tlv(_OID, _SERIAL_NUMBER), number)))
        san = [_extension(_SAN, _tlv(_SEQUENCE, _tlv(0xA4, inner)))]
    return [*san, basic, usage, *keys]


def _extension(oid: bytes, value: bytes, *, is_critical: bool = False) -> bytes:
    critical = _tlv(_BOOLEAN, b"\xff") if is_critical else b""
    return _tlv(_SEQUENCE, _tlv(_OID, oid), critical, _tlv(_OCTETS, value))


def _name(organization: str, common_name: str) -> bytes:
    parts = ((_ORGANIZATION, organization), (_COMMON_NAME, common_name))
    sets = (_tlv(_SET, _tlv(_SEQUENCE, _tlv(_OID, oid), _tlv(_UTF8, text.encode()))) for oid, text in parts)
    return _tlv(_SEQUENCE, *sets)


def _validity(short: CompressedCertificate) -> bytes:
    """Return the validity; the end is always in the longer form, also for 2049, unlike RFC 5280."""
    start = _tlv(_UTC_TIME, f"{short.issued:%y%m%d%H%M%SZ}".encode())
    return _tlv(_SEQUENCE, start, _tlv(_GENERALIZED_TIME, f"{short.ends:%Y%m%d%H%M%SZ}".encode()))


def _tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:  # noqa: PLR2004 (X.690 section 8.1.3)
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body
