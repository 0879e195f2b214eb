"""Parse and format bundle lines, for stations and readers.

Input: one line without its end, at most MAX_LINE_BYTES. Output: `OpeningLine`, `ChipLine` or `SealLine`, with the bytes
that the station signed and the unverified signature (DER). Raises `MalformedEntryError`.

The signature is the last member of each line and covers everything before it, byte for byte. So a shell can cut it off
(docs/howto/provenance.md), and verification is independent of JSON formatting.
"""

import binascii
import hashlib
import re
from codecs import BOM_UTF8
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from birthmark.manifests.errors import MalformedEntryError
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_der
from birthmark.untrusted_json_and_text import read_json

FORMAT = "birthmark-intake/1"
BEGINNING = b'{"format":"birthmark-intake/'
LOOKED_AT = len(BOM_UTF8) + len(BEGINNING)
"""Number of bytes that identify a bundle."""
MAX_LINE_BYTES = 64 * 1024
MAX_NAME_CHARS = 64
MAX_CHAIN = 8
DIGEST_BYTES = 32
BUNDLE_ID_BYTES = 16
_HEX = re.compile("[0-9a-f]+")
_TAIL = re.compile(rb',"signature":"([A-Za-z0-9+/]{8,128}={0,2})"\}\Z')
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class _BundleLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", kw_only=True):
    seq: int
    at: str


class OpeningLine(_BundleLine, frozen=True, tag=f"{FORMAT} open", kw_only=True):
    """The first line: `certificate` is the station's, base64 of DER; `bundle` 32 random hex digits.

    `after` is the SHA-256 of the seal of the station's previous bundle: a withheld bundle leaves a gap.
    """

    after: str | None
    bundle: str
    station: str
    certificate: str


class ChipLine(_BundleLine, frozen=True, tag=f"{FORMAT} chip", kw_only=True):
    """A chip's line. `previous` is the SHA-256 of the previous line; `key` that of the chip's SubjectPublicKeyInfo."""

    previous: str
    board: str
    operator: str
    key: str
    chain: tuple[str, ...]
    root: str | None
    challenge: str
    proof: str


class SealLine(_BundleLine, frozen=True, tag=f"{FORMAT} seal", kw_only=True):
    """The last line: the bundle's id and its number of chips."""

    previous: str
    bundle: str
    chips: int


Line = OpeningLine | ChipLine | SealLine


@dataclass(frozen=True, slots=True)
class SignedLine:
    """A parsed line with an unverified signature."""

    line: Line
    signed: bytes
    signature: bytes


def is_bundle(beginning: bytes) -> bool:
    """Return whether a file with this beginning is a bundle, of this or another version."""
    return beginning.removeprefix(BOM_UTF8).startswith(BEGINNING)


def render_line(line: Line, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the encoded line, signed by `sign` (DER), without the line end."""
    signed = msgspec.json.encode(line)[:-1]
    return signed + b',"signature":"' + base64(sign(signed)).encode() + b'"}'


def parse_line(raw: bytes) -> SignedLine:
    """Parse a line. Raise `MalformedEntryError`."""
    raw = raw.removeprefix(BOM_UTF8)
    if len(raw) > MAX_LINE_BYTES:
        raise MalformedEntryError(detail=f"it has more than {MAX_LINE_BYTES} bytes")
    if (found := _TAIL.search(raw)) is None:
        raise MalformedEntryError(detail="it does not end with a signature")
    signed = raw[: found.start()]
    line: Line = read_json(signed + b"}", Line, MalformedEntryError)  # type: ignore[arg-type]  # union of structs
    return SignedLine(line, signed, unbase64(found[1].decode()))


def digest(raw: bytes) -> str:
    """Return the digest by which the next line references this one."""
    return hashlib.sha256(raw.removeprefix(BOM_UTF8)).hexdigest()


def key_digest(certificate: Certificate) -> str:
    """Return the digest of a certificate's key as lines contain it."""
    return hashlib.sha256(certificate.spki_der).hexdigest()


def render_certificate(certificate: Certificate) -> str:
    return base64(certificate.der)


def parse_certificate(text: str) -> Certificate:
    """Parse a certificate. Raise `MalformedEntryError`."""
    try:
        return parse_der(unbase64(text))
    except CertificateInvalidError as error:
        raise MalformedEntryError(detail="a certificate cannot be read") from error


@lru_cache(maxsize=64)
def parse_issuer(text: str) -> Certificate:
    """Parse a CA certificate, cached: the same few are in every line."""
    return parse_certificate(text)


def render_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_TIME)


def parse_time(text: str) -> datetime:
    """Parse a time. Raise `MalformedEntryError`."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and render_time(moment) == text:
            return moment
    raise MalformedEntryError(detail="the time is not valid")


def base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def unbase64(text: str) -> bytes:
    """Decode base64. Raise `MalformedEntryError`."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise MalformedEntryError(detail="the base64 is not valid") from error


def is_name(text: str) -> bool:
    """Return whether a name of a board, operator or station is valid: printable, no quotes, no backslash.

    Those two are excluded so that a name needs no escaping in JSON.
    """
    is_long_enough = 1 <= len(text) <= MAX_NAME_CHARS
    return is_long_enough and text.isprintable() and text == text.strip() and not set(text) & {'"', "\\"}


def is_digest(text: str) -> bool:
    """Return whether a text is a SHA-256 or a challenge in the format of lines."""
    return _HEX.fullmatch(text) is not None and len(text) == 2 * DIGEST_BYTES


def is_bundle_id(text: str) -> bool:
    """Return whether a text is 16 random bytes in the format of openings."""
    return _HEX.fullmatch(text) is not None and len(text) == 2 * BUNDLE_ID_BYTES
