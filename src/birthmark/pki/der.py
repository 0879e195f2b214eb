"""DER by hand, where the library would make objects of what is only cut out or put together (X.690 section 8.1).

What is cut was read by the library before, so that hardly anything is checked here.
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
"""Object identifiers of PKCS#7's kinds, but for the last byte."""
_PBE = bytes.fromhex("060a2a864886f70d010c01")
_PBE_LEGACY = (1, 2, 5, 6)
"""Encryption with RC4 and RC2, in RFC 7292's list; 3DES is in OpenSSL's default provider."""
_BAG = bytes.fromhex("060b2a864886f70d010c0a01")
_KEY_BAGS = (1, 2)
"""keyBag and pkcs8ShroudedKeyBag (RFC 7292 section 4.2)."""
_ENDLESS = re.compile(rb"[\x80-\xff]{2000}")
_HEADER = 2  # tag and length, where the length is short


def element(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at `at` begins, and where it ends."""
    length, content = der[at + 1], at + 2
    if length & _SHORT:
        content += length & _LONG
        length = int.from_bytes(der[at + 2 : content])
    return content, content + length


def is_pkcs12(raw: bytes) -> bool:
    """Say whether bytes begin as a PFX does: version 3, then content of a PKCS#7 kind (RFC 7292 section 4)."""
    return raw[:1] == b"\x30" and raw[_content(raw) :].startswith(_VERSION_3) and _PKCS7 in raw[:_LOOKED_AT]


def pkcs12_options(raw: bytes) -> str:
    """Return what `openssl pkcs12` of version 3 needs for RC2 and RC4, in which Windows wrote a PFX for long."""
    return " -legacy" if any(_PBE + bytes((one,)) in raw for one in _PBE_LEGACY) else ""


def has_pkcs12_key(raw: bytes) -> bool:
    """Say whether a PFX holds a private key: its bag is encrypted alone, in what is otherwise readable."""
    return any(_BAG + bytes((one,)) in raw for one in _KEY_BAGS)


def is_pkcs7(raw: bytes) -> bool:
    """Say whether bytes begin as PKCS#7 SignedData does (RFC 2315 section 7)."""
    return raw[:1] == b"\x30" and raw[_content(raw) :].startswith(_PKCS7 + b"\x02")


def is_der(raw: bytes) -> bool:
    """Say whether this is PKCS#7, or DER of 128 bytes or more, which begins as no text does."""
    return raw[:1] == b"\x30" and (raw[1:2] >= b"\x80" or is_pkcs7(raw))


def _content(raw: bytes) -> int:
    """Return where the content of the first element begins, also where its length is open (BER)."""
    return _HEADER + (raw[1] & _LONG if len(raw) > 1 and raw[1] & _SHORT else 0)


def shortest_element(der: bytes, at: int) -> tuple[int, int]:
    """Return the same of what nobody read before. Raise `ValueError` for a length that is not in its shortest form."""
    content, end = element(der, at)
    if end - content < (_SHORT if content - at > _HEADER else 0) or (content - at > _HEADER and not der[at + 2]):
        raise ValueError("a length in more bytes than it needs")
    return content, end


def check_quick(der: bytes) -> None:
    """Raise `ValueError` for what asn1crypto reads in a time by the square of its length: seconds, for some words.

    Tags and object identifiers go on while a byte's first bit is set. No real one is so long, nor is any text.
    """
    if _ENDLESS.search(der):
        raise ValueError("a tag or an object identifier is too long")


def wrap(tag: int, *contents: bytes) -> bytes:
    """Return an element of these contents, one after the other."""
    content = b"".join(contents)
    size = len(content)
    if size < _SHORT:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _SHORT | len(length))) + length + content


def positive(number: int) -> bytes:
    """Return an INTEGER."""
    return wrap(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def time(moment: datetime) -> bytes:
    """Return a moment in UTC, of whole seconds, as RFC 5280 wants it."""
    text = f"{moment:%Y%m%d%H%M%SZ}".encode()
    return wrap(UTC_TIME, text[2:]) if moment.year < _FIRST_GENERALIZED else wrap(GENERALIZED_TIME, text)
