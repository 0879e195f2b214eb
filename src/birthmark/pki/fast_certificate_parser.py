"""Fast certificate parser for lists of a million secure elements, without objects for each part.

In:   the DER of one certificate, presumably signed by a known issuer.
Out:  a `ParsedLeaf`, or None for all but the simple case: a P-256 device signed by ECDSA, with one common name. Then
      the library's parser is used (`certificates.parse_der`), which is several times slower.

The result is untrusted until its signature is verified (`is_signed_with`).
"""

import re
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.pki.certificates import ECDSA, MAX_CERTIFICATE_BYTES, P256_SPKI, is_p256
from birthmark.pki.der import (
    BIT_STRING,
    EXPLICIT_0,
    INTEGER,
    OCTET_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTF8_STRING,
    shortest_element,
)

_POINT_BYTES = 64
_ALGORITHM_BYTES = 12
_EXPLICIT_3 = 0xA3
_COMMON_NAME = bytes.fromhex("0603550403")
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
_CRITICAL = bytes.fromhex("0101ff")
_MAX_NAME_BYTES = 64  # RFC 5280 appendix A: ub-common-name
_SERIAL = re.compile(rb"[\x01-\x7f]|\x00[\x80-\xff]")  # positive, in the fewest bytes
_DAY = rb"(?:(?:0[1-9]|1[0-2])(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])(?:29|30)|(?:0[13578]|1[02])31)"
_TIME = _DAY + rb"(?:[01]\d|2[0-3])[0-5]\d[0-5]\dZ"
_DATE = rb"(?:\x17\x0d\d\d" + _TIME + rb"|\x18\x0f(?:20[5-9]|2[1-9]\d|[3-9]\d\d)\d" + _TIME + rb")"
_DATES = re.compile(rb"\x30." + _DATE + _DATE, re.DOTALL)
"""A Validity that all parsers accept equally (RFC 5280 section 4.1.2.5).

The last day of February is left to the library.
"""


class ParsedLeaf(NamedTuple):
    """Fields of a non-CA certificate: common name, key as X and Y, and the signed data."""

    common_name: str
    point: bytes
    issuer_der: bytes
    signed: bytes
    algorithm: ec.ECDSA
    signature: bytes


def parse_leaf(der: bytes) -> ParsedLeaf | None:
    """Return the required fields, or None if the library must parse the certificate."""
    try:
        return _glance(der) if len(der) <= MAX_CERTIFICATE_BYTES else None
    except (IndexError, ValueError):
        return None


def is_signed_with(certificate: ParsedLeaf, key: ec.EllipticCurvePublicKey) -> bool:
    """Return whether this key made the signature."""
    try:
        key.verify(certificate.signature, certificate.signed, certificate.algorithm)
    except InvalidSignature:
        return False
    return True


def _glance(der: bytes) -> ParsedLeaf | None:
    start, end = shortest_element(der, 0)
    tbs, tbs_end = shortest_element(der, start)
    at = shortest_element(der, tbs)[1]  # the version, omitted without extensions
    serial, serial_end = shortest_element(der, at)
    issuer_at = serial_end + _ALGORITHM_BYTES
    algorithm = der[serial_end:issuer_at]
    validity_at = shortest_element(der, issuer_at)[1]
    subject_at = shortest_element(der, validity_at)[1]
    spki_at = shortest_element(der, subject_at)[1]
    point_at = spki_at + len(P256_SPKI)
    extensions_at = point_at + _POINT_BYTES
    bits_at = tbs_end + _ALGORITHM_BYTES
    bits, bits_end = shortest_element(der, bits_at)
    tags = der[0], der[start], der[tbs], der[at], der[issuer_at], der[validity_at], der[subject_at], der[extensions_at]
    name = _only_name(der[subject_at:spki_at])
    is_plain = (
        tags == _TAGS
        and der[bits_at] == BIT_STRING
        and der[bits] == 0
        and algorithm in ECDSA
        and der.startswith(algorithm, tbs_end)
        and end == bits_end == len(der)
        and shortest_element(der, extensions_at)[1] == tbs_end
        and _is_no_ca(der[extensions_at:tbs_end])
        and _SERIAL.match(der, serial, serial_end)
        and _DATES.fullmatch(der, validity_at, subject_at)
        and is_p256(der[spki_at:extensions_at])
    )
    if name is None or not is_plain:
        return None
    point, issuer = der[point_at:extensions_at], der[issuer_at:validity_at]
    return ParsedLeaf(name, point, issuer, der[start:tbs_end], ECDSA[algorithm], der[bits + 1 : end])


_TAGS = (SEQUENCE, SEQUENCE, EXPLICIT_0, INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, _EXPLICIT_3)


def _only_name(subject: bytes) -> str | None:
    """Return the common name if each attribute is alone in its set and exactly one has this type.

    The attributes are parsed one by one, because another type or value may contain bytes that resemble a common name.
    """
    found: bytes | None = None
    at, end = shortest_element(subject, 0)
    while at < end:
        in_set, set_end = shortest_element(subject, at)
        in_pair, pair_end = shortest_element(subject, in_set)
        if (subject[at], subject[in_set], pair_end) != (SET, SEQUENCE, set_end):
            return None
        if subject.startswith(_COMMON_NAME, in_pair):
            value = in_pair + len(_COMMON_NAME)
            begin, value_end = shortest_element(subject, value)
            is_plain = subject[value] in {UTF8_STRING, PRINTABLE_STRING} and value_end == set_end
            if found is not None or not is_plain or not begin < value_end <= begin + _MAX_NAME_BYTES:
                return None
            found = subject[begin:value_end]
        at = set_end
    return found.decode() if found is not None and at == end == len(subject) else None


def _is_no_ca(extensions: bytes) -> bool:
    """Return whether BasicConstraints occurs at most once and is empty."""
    count = extensions.count(_BASIC_CONSTRAINTS)
    if count != 1:
        return count == 0
    at = extensions.index(_BASIC_CONSTRAINTS) + len(_BASIC_CONSTRAINTS)
    at += len(_CRITICAL) if extensions.startswith(_CRITICAL, at) else 0
    return extensions.startswith(_EMPTY, at)


_EMPTY = bytes((OCTET_STRING, 2, SEQUENCE, 0))
