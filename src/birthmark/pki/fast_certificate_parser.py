"""Fast certificate parser: plain certificates without the library's object for each part (RFC 5280 section 4.1).

In:   the DER of one certificate.
Out:  its fields, or None for all but the plain case: a P-256 key, signed by ECDSA, with the usual encodings. Then the
      library's parser is used (`certificates.parse_der`), which is several times slower.

A fuzz target compares both parsers. The result is untrusted until its signature is verified.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.pki.der import (
    BIT_STRING,
    EXPLICIT_0,
    INTEGER,
    OCTET_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTC_TIME,
    UTF8_STRING,
    shortest_element,
    wrap,
)
from birthmark.pki.extension_parser import CLIENT_AUTH, SERVER_AUTH, Extensions

MAX_CERTIFICATE_BYTES = 64 * 1024
MAX_NAME_BYTES = 2048  # RFC 5280 bounds each part to some tens of characters, not their number
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""SubjectPublicKeyInfo prefix before X and Y (RFC 5480): ecPublicKey, prime256v1, uncompressed point."""
ECDSA = {
    bytes.fromhex(f"300a06082a8648ce3d0403{last:02x}"): ec.ECDSA(algorithm)
    for last, algorithm in ((2, hashes.SHA256()), (3, hashes.SHA384()), (4, hashes.SHA512()))
}
"""Signature algorithms by AlgorithmIdentifier of ecdsa-with-SHA256, -SHA384 and -SHA512 (RFC 5758 section 3.2)."""
ALGORITHM_BYTES = 12
_POINT_BYTES = 64
_P256_SPKI_BYTES = len(P256_SPKI) + _POINT_BYTES
_P, _B = 2**256 - 2**224 + 2**192 + 2**96 - 1, 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_EXPLICIT_3 = 0xA3
_ID_AT = bytes.fromhex("06035504")
_CN, _COUNTRY = 3, 6
_ATTRIBUTES = frozenset({_CN, 5, _COUNTRY, 7, 8, 10, 11, 46})
"""Last bytes of the types CN, serialNumber, C, L, ST, O, OU and dnQualifier."""
_PRINTABLE = re.compile(rb"[A-Za-z0-9 '()+,./:=?-]+")
_VERSION_3 = bytes((EXPLICIT_0, 3, INTEGER, 1, 2))
_MAX_SERIAL_BYTES = 20
_COUNTRY_BYTES = 2
_COMMON_NAME = bytes.fromhex("0603550403")
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
_CRITICAL = bytes.fromhex("0101ff")
_MAX_VALUE_BYTES = 64  # RFC 5280 appendix A: ub-common-name
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


class PlainFields(NamedTuple):
    """Fields of a plain certificate."""

    extensions: Extensions
    subject: bytes
    issuer: bytes
    spki: bytes
    serial: int
    not_before: datetime
    not_after: datetime


class _Parts(NamedTuple):
    """Encoded parts of a certificate with a P-256 key that is signed by ECDSA."""

    serial: bytes
    issuer: bytes
    validity: bytes
    subject: bytes
    spki: bytes
    extensions: bytes
    signed: bytes
    algorithm: ec.ECDSA
    signature: bytes
    has_version_3: bool


def parse_leaf(der: bytes) -> ParsedLeaf | None:
    """Return the required fields, or None if the library must parse the certificate."""
    try:
        if len(der) > MAX_CERTIFICATE_BYTES or (parts := _cut(der)) is None:
            return None
        name = _only_name(parts.subject)
        if name is None or not _is_no_ca(parts.extensions):
            return None
        point = parts.spki[len(P256_SPKI) :]
        return ParsedLeaf(name, point, parts.issuer, parts.signed, parts.algorithm, parts.signature)
    except (IndexError, ValueError):
        return None


def parse_plain(der: bytes) -> PlainFields | None:
    """Return all fields, or None if the library must parse the certificate.

    A plain certificate has version 3 and short names with one attribute in each RDN. Its only extensions are basic
    constraints, key usages and key identifiers in their usual encodings.
    """
    try:
        parts = _cut(der)
        if parts is None or not parts.has_version_3 or len(parts.serial) > _MAX_SERIAL_BYTES:
            return None
        if max(len(parts.subject), len(parts.issuer)) > MAX_NAME_BYTES:  # the library's parser gives the reason
            return None
        extensions = _extensions_of(parts.extensions)
        if extensions is None or None in (attributes_of(parts.issuer), attributes_of(parts.subject)):
            return None
        second = 4 + parts.validity[3]  # offset of the second time
        dates = _time_of(parts.validity, 2), _time_of(parts.validity, second)
        return PlainFields(extensions, parts.subject, parts.issuer, parts.spki, int.from_bytes(parts.serial), *dates)
    except (IndexError, ValueError):
        return None


def is_signed_with(certificate: ParsedLeaf, key: ec.EllipticCurvePublicKey) -> bool:
    """Return whether this key made the signature."""
    try:
        key.verify(certificate.signature, certificate.signed, certificate.algorithm)
    except InvalidSignature:
        return False
    return True


def is_p256(spki: bytes) -> bool:
    """Return whether this is a canonical P-256 key with its point on the curve (FIPS 186-4 appendix D.1.2.3).

    Most devices have such a key; the library takes ten times as long for the same check.
    """
    if len(spki) != _P256_SPKI_BYTES or not spki.startswith(P256_SPKI):
        return False
    x, y = int.from_bytes(spki[-64:-32]), int.from_bytes(spki[-32:])
    return x < _P and y < _P and (y * y - x * (x * x - 3) - _B) % _P == 0


def _cut(der: bytes) -> _Parts | None:
    start, end = shortest_element(der, 0)
    tbs, tbs_end = shortest_element(der, start)
    at = shortest_element(der, tbs)[1]  # the version, omitted without extensions
    serial, serial_end = shortest_element(der, at)
    issuer_at = serial_end + ALGORITHM_BYTES
    algorithm = der[serial_end:issuer_at]
    validity_at = shortest_element(der, issuer_at)[1]
    subject_at = shortest_element(der, validity_at)[1]
    spki_at = shortest_element(der, subject_at)[1]
    extensions_at = spki_at + _P256_SPKI_BYTES
    bits_at = tbs_end + ALGORITHM_BYTES
    bits, bits_end = shortest_element(der, bits_at)
    tags = der[0], der[start], der[tbs], der[at], der[issuer_at], der[validity_at], der[subject_at], der[extensions_at]
    spki = der[spki_at:extensions_at]
    is_plain = (
        tags == _TAGS
        and der[bits_at] == BIT_STRING
        and der[bits] == 0
        and algorithm in ECDSA
        and der.startswith(algorithm, tbs_end)
        and end == bits_end == len(der)
        and shortest_element(der, extensions_at)[1] == tbs_end
        and _SERIAL.match(der, serial, serial_end)
        and _DATES.fullmatch(der, validity_at, subject_at)
        and is_p256(spki)
    )
    if not is_plain:
        return None
    return _Parts(
        serial=der[serial:serial_end],
        issuer=der[issuer_at:validity_at],
        validity=der[validity_at:subject_at],
        subject=der[subject_at:spki_at],
        spki=spki,
        extensions=der[extensions_at:tbs_end],
        signed=der[start:tbs_end],
        algorithm=ECDSA[algorithm],
        signature=der[bits + 1 : end],
        has_version_3=der.startswith(_VERSION_3, tbs),
    )


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
            if found is not None or not is_plain or not begin < value_end <= begin + _MAX_VALUE_BYTES:
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


def attributes_of(name: bytes) -> list[tuple[int, str]] | None:
    """Return the attributes of a plain DER name, each with the last byte of its type; None if it is not plain."""
    at, end = shortest_element(name, 0)
    found = []
    while at < end:
        in_set, set_end = shortest_element(name, at)
        in_pair, pair_end = shortest_element(name, in_set)
        value_at = in_pair + len(_ID_AT) + 1
        begin, value_end = shortest_element(name, value_at)
        kind, tag, value = name[value_at - 1], name[value_at], name[begin:value_end]
        is_plain = (
            (name[at], name[in_set]) == (SET, SEQUENCE)
            and value_end == pair_end == set_end
            and name.startswith(_ID_AT, in_pair)
            and kind in _ATTRIBUTES
            and (tag == UTF8_STRING or (tag == PRINTABLE_STRING and _PRINTABLE.fullmatch(value)))
            and (len(value) == _COUNTRY_BYTES if kind == _COUNTRY else 0 < len(value) <= _MAX_VALUE_BYTES)
        )
        if not is_plain:
            return None
        found.append((kind, value.decode()))
        at = set_end
    return found if name[0] == SEQUENCE and at == end == len(name) else None


def common_names_of(name: bytes) -> list[str] | None:
    """Return the common names of a plain DER name; None if it is not plain."""
    try:
        attributes = attributes_of(name)
    except (IndexError, ValueError):
        return None
    return None if attributes is None else [value for kind, value in attributes if kind == _CN]


def _time_of(validity: bytes, offset: int) -> datetime:
    """Return one of the two times, whose form is already checked."""
    is_short = validity[offset] == UTC_TIME
    digits = validity[offset:][2 : 2 + (12 if is_short else 14)].decode()
    if is_short:
        digits = ("19" if digits >= "5" else "20") + digits
    return datetime.fromisoformat(f"{digits[:8]}T{digits[8:]}Z")


_SHORT_NAMES = {_CN: "CN", _COUNTRY: "C", 7: "L", 8: "ST", 10: "O", 11: "OU"}
_UNESCAPED = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._:/-]*[A-Za-z0-9._:/-])?", re.ASCII)


def text_of_plain(name: bytes) -> str:
    """Format a plain DER name as text (RFC 4514); empty if it is not plain or a value needs escapes."""
    try:
        attributes = attributes_of(name) or ()
    except (IndexError, ValueError):
        return ""
    if not all(_UNESCAPED.fullmatch(value) for _, value in attributes):
        return ""
    return ",".join(f"{_SHORT_NAMES.get(kind) or f'2.5.4.{kind}'}={value}" for kind, value in reversed(attributes))


_ID_CE = bytes.fromhex("0603551d")
_KEY_USAGE, _BASIC, _PURPOSES = 0x0F, 0x13, 0x25
_KEY_ID_BYTES = 20
_KEY_IDS = {
    bytes.fromhex("0603551d0e04160414"): "subject_key_id",
    bytes.fromhex("0603551d23041830168014"): "authority_key_id",
}
"""Extensions with a SHA-1 key identifier, up to its bytes (RFC 5280 section 4.2.1.2)."""
_CLIENT, _SERVER = "06082b06010505070302", "06082b06010505070301"
_USUAL: Iterable[tuple[int, str, Mapping[str, Any]]] = (
    (_BASIC, "3000", {}),
    (_BASIC, "30030101ff", {"is_ca": True}),
    *((_BASIC, f"30060101ff0201{length:02x}", {"is_ca": True, "path_length": length}) for length in range(8)),
    (_KEY_USAGE, "03020780", {"key_usage": frozenset({"digital_signature"})}),
    (_KEY_USAGE, "030205a0", {"key_usage": frozenset({"digital_signature", "key_encipherment"})}),
    (_KEY_USAGE, "03020204", {"key_usage": frozenset({"key_cert_sign"})}),
    (_KEY_USAGE, "03020106", {"key_usage": frozenset({"key_cert_sign", "crl_sign"})}),
    (_KEY_USAGE, "03020186", {"key_usage": frozenset({"digital_signature", "key_cert_sign", "crl_sign"})}),
    (_PURPOSES, f"300a{_CLIENT}", {"extended_key_usage": frozenset({CLIENT_AUTH})}),
    (_PURPOSES, f"300a{_SERVER}", {"extended_key_usage": frozenset({SERVER_AUTH})}),
    (_PURPOSES, f"3014{_CLIENT}{_SERVER}", {"extended_key_usage": frozenset({CLIENT_AUTH, SERVER_AUTH})}),
    (_PURPOSES, f"3014{_SERVER}{_CLIENT}", {"extended_key_usage": frozenset({CLIENT_AUTH, SERVER_AUTH})}),
)
"""Usual values of extensions, and the fields that they fill."""


def _encodings() -> Iterable[tuple[bytes, tuple[int, Mapping[str, Any]]]]:
    for kind, value, fields in _USUAL:
        content = wrap(OCTET_STRING, bytes.fromhex(value))
        oid = _ID_CE + bytes((kind,))
        critical = {**fields, "critical": frozenset({"basic_constraints"})} if kind == _BASIC else fields
        yield from ((oid + content, (kind, fields)), (oid + _CRITICAL + content, (kind, critical)))


_ENCODINGS = dict(_encodings())


def _extensions_of(encoded: bytes) -> Extensions | None:
    """Return the extensions if each is known in its usual encoding and occurs once."""
    inside, end = shortest_element(encoded, 0)
    at, stop = shortest_element(encoded, inside)
    says: dict[str, Any] = {}
    kinds: list[int | str] = []
    while at < stop:
        content, one_end = shortest_element(encoded, at)
        one = encoded[content:one_end]
        kind, fields = _ENCODINGS.get(one, ("", {}))
        if not kind:
            kind = _KEY_IDS.get(one[:-_KEY_ID_BYTES], "")
            fields = {kind: one[-_KEY_ID_BYTES:]}
        if not kind or encoded[at] != SEQUENCE or kind in kinds:
            return None
        kinds.append(kind)
        says |= fields
        at = one_end
    is_exact = encoded[inside] == SEQUENCE and at == stop == end == len(encoded) and bool(kinds)
    return Extensions(**says) if is_exact else None
