"""Direct DER encoding and decoding, without the library's object for every part (X.690 section 8.1).

The input has already been parsed by the library, so there are few checks here.
"""

import re
from datetime import datetime

SEQUENCE, SET, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x30, 0x31, 0x02, 0x03, 0x04, 0x06
UTF8_STRING, PRINTABLE_STRING, ENUMERATED = 0x0C, 0x13, 0x0A
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
EXPLICIT_0 = 0xA0
_SHORT, _LONG = 0x80, 0x7F
_FIRST_GENERALIZED = 2050  # RFC 5280 section 4.1.2.5
_VERSION_3, _LOOKED_AT = bytes((INTEGER, 1, 3)), 64
_PKCS7 = bytes.fromhex("06092a864886f70d0107")
"""Object identifiers of the PKCS#7 content types, without the last byte."""
_PBE = bytes.fromhex("060a2a864886f70d010c01")
_PBE_LEGACY = (1, 2, 5, 6)
"""Encryption with RC4 and RC2 in RFC 7292's list; OpenSSL's default provider has 3DES."""
_BAG = bytes.fromhex("060b2a864886f70d010c0a01")
_KEY_BAGS = (1, 2)
"""keyBag and pkcs8ShroudedKeyBag (RFC 7292 section 4.2)."""
_ENDLESS = re.compile(rb"[\x80-\xff]{2000}")
_HEADER = 2  # tag and short-form length


def element(der: bytes, offset: int) -> tuple[int, int]:
    """Return start and end of the content of the element at `at`."""
    length, content = der[offset + 1], offset + 2
    if length & _SHORT:
        content += length & _LONG
        length = int.from_bytes(der[offset + 2 : content])
    return content, content + length


def is_pkcs12(raw: bytes) -> bool:
    """Return whether the bytes start like a PFX: version 3, then a PKCS#7 content type (RFC 7292 section 4)."""
    return raw[:1] == b"\x30" and raw[_content(raw) :].startswith(_VERSION_3) and _PKCS7 in raw[:_LOOKED_AT]


def pkcs12_options(raw: bytes) -> str:
    """Return the `openssl pkcs12` options for RC2 and RC4 in version 3; Windows long used these for PFX files."""
    return " -legacy" if any(_PBE + bytes((one,)) in raw for one in _PBE_LEGACY) else ""


def has_pkcs12_key(raw: bytes) -> bool:
    """Return whether a PFX contains a private key: its bag is encrypted separately in readable content."""
    return any(_BAG + bytes((one,)) in raw for one in _KEY_BAGS)


def is_pkcs7(raw: bytes) -> bool:
    """Return whether the bytes start like PKCS#7 SignedData (RFC 2315 section 7)."""
    return raw[:1] == b"\x30" and raw[_content(raw) :].startswith(_PKCS7 + b"\x02")


def is_der(raw: bytes) -> bool:
    """Return whether this is PKCS#7, or DER of 128 bytes or more, which does not start like text."""
    return raw[:1] == b"\x30" and (raw[1:2] >= b"\x80" or is_pkcs7(raw))


def _content(raw: bytes) -> int:
    """Return the start of the first element's content, also for indefinite length (BER)."""
    return _HEADER + (raw[1] & _LONG if len(raw) > 1 and raw[1] & _SHORT else 0)


def shortest_element(der: bytes, offset: int) -> tuple[int, int]:
    """Return the same for unparsed data. Raise `ValueError` for a length that is not in its shortest form."""
    if (length := der[offset + 1]) < _SHORT:
        return offset + _HEADER, offset + _HEADER + length
    content, end = element(der, offset)
    if end - content < _SHORT or not der[offset + _HEADER]:
        raise ValueError("a length in more bytes than it needs")
    return content, end


def check_quick(der: bytes) -> None:
    """Raise `ValueError` for data that asn1crypto parses in quadratic time, which takes seconds.

    Tags and object identifiers continue while the high bit of a byte is set. No real one is this long, nor is any text.
    """
    if _ENDLESS.search(der):
        raise ValueError("a tag or an object identifier is too long")


def wrap(tag: int, *contents: bytes) -> bytes:
    """Return an element with the concatenated contents."""
    content = b"".join(contents)
    size = len(content)
    if size < _SHORT:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _SHORT | len(length))) + length + content


def positive(number: int) -> bytes:
    """Return a positive number as a DER INTEGER."""
    return wrap(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def time(moment: datetime) -> bytes:
    """Encode a UTC time with whole seconds as RFC 5280 requires."""
    text = f"{moment:%Y%m%d%H%M%SZ}".encode()
    return wrap(UTC_TIME, text[2:]) if moment.year < _FIRST_GENERALIZED else wrap(GENERALIZED_TIME, text)
