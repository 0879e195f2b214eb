"""Lines of a bundle to values and back, for the station that writes and for whoever reads.

In:   one line without its end, at most MAX_LINE_BYTES.
Out:  `OpeningLine`, `ChipLine` or `SealLine`, with the bytes that the station signed and the unchecked signature (DER).
Raises `MalformedEntryError`.

The signature is the last member of each line, and what it covers is everything before it, byte for byte: so a shell
can cut it off (docs/howto/provenance.md), and nothing depends on how somebody's JSON is written.
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
from birthmark.untrusted_text import read_json

FORMAT = "birthmark-intake/1"
BEGINNING = b'{"format":"birthmark-intake/'
LOOKED_AT = len(BOM_UTF8) + len(BEGINNING)
"""Bytes that show whether a file is a bundle."""
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

    `after` is the SHA-256 of the seal of the station's bundle before: one that is held back leaves a gap.
    """

    after: str | None
    bundle: str
    station: str
    certificate: str


class ChipLine(_BundleLine, frozen=True, tag=f"{FORMAT} chip", kw_only=True):
    """One chip. `previous` is the SHA-256 of the line before; `key` that of the chip's SubjectPublicKeyInfo."""

    previous: str
    board: str
    operator: str
    key: str
    chain: tuple[str, ...]
    root: str | None
    challenge: str
    proof: str


class SealLine(_BundleLine, frozen=True, tag=f"{FORMAT} seal", kw_only=True):
    """The last line: of which bundle, and how many chips there are."""

    previous: str
    bundle: str
    chips: int


Line = OpeningLine | ChipLine | SealLine


@dataclass(frozen=True, slots=True)
class SignedLine:
    """A line as it was read: the signature is not checked yet."""

    line: Line
    signed: bytes
    signature: bytes


def is_bundle(beginning: bytes) -> bool:
    """Say whether a file that begins like this is a bundle, of this version or another."""
    return beginning.removeprefix(BOM_UTF8).startswith(BEGINNING)


def render_line(line: Line, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the line that `sign` signs (DER), without its end."""
    signed = msgspec.json.encode(line)[:-1]
    return signed + b',"signature":"' + base64(sign(signed)).encode() + b'"}'


def parse_line(raw: bytes) -> SignedLine:
    """Return what a line says. Raise `MalformedEntryError`."""
    raw = raw.removeprefix(BOM_UTF8)
    if len(raw) > MAX_LINE_BYTES:
        raise MalformedEntryError(detail=f"over {MAX_LINE_BYTES} bytes")
    if (found := _TAIL.search(raw)) is None:
        raise MalformedEntryError(detail="it does not end with a signature")
    signed = raw[: found.start()]
    line: Line = read_json(signed + b"}", Line, MalformedEntryError)  # type: ignore[arg-type]  # a union of structs
    return SignedLine(line, signed, unbase64(found[1].decode()))


def digest(raw: bytes) -> str:
    """Return what the next line calls this one."""
    return hashlib.sha256(raw.removeprefix(BOM_UTF8)).hexdigest()


def key_digest(certificate: Certificate) -> str:
    """Return what a line calls the key of a certificate."""
    return hashlib.sha256(certificate.spki_der).hexdigest()


def render_certificate(certificate: Certificate) -> str:
    return base64(certificate.der)


def parse_certificate(text: str) -> Certificate:
    """Raise `MalformedEntryError`."""
    try:
        return parse_der(unbase64(text))
    except CertificateInvalidError as error:
        raise MalformedEntryError(detail="a certificate cannot be read") from error


@lru_cache(maxsize=64)
def parse_issuer(text: str) -> Certificate:
    """Do the same for a CA's: the same few stand in every line."""
    return parse_certificate(text)


def render_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_TIME)


def parse_time(text: str) -> datetime:
    """Raise `MalformedEntryError`."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and render_time(moment) == text:
            return moment
    raise MalformedEntryError(detail="the time is not valid")


def base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def unbase64(text: str) -> bytes:
    """Raise `MalformedEntryError`."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise MalformedEntryError(detail="the base64 is not valid") from error


def is_name(text: str) -> bool:
    r"""Say whether a board, an operator or a station may be called so: printable, no quotes, no backslash.

    Those two are left out so that a name stands in a line of JSON as it is.
    """
    is_long_enough = 1 <= len(text) <= MAX_NAME_CHARS
    return is_long_enough and text.isprintable() and text == text.strip() and not set(text) & {'"', "\\"}


def is_digest(text: str) -> bool:
    """Say whether this is a SHA-256, or a challenge, as lines have it."""
    return _HEX.fullmatch(text) is not None and len(text) == 2 * DIGEST_BYTES


def is_bundle_id(text: str) -> bool:
    """Say whether this is 16 random bytes as an opening has them."""
    return _HEX.fullmatch(text) is not None and len(text) == 2 * BUNDLE_ID_BYTES
