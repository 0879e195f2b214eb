"""Split a manifest into its entries without parsing them.

A manifest is a JSON array of objects whose strings are base64 or short ids, so `}`, a comma and `{` occur only between
two entries. A broken entry affects no other: reading resumes at the next such boundary.

Input: a file of any size, at most MAX_ENTRY_BYTES per entry. Output: pieces: the bytes of some entries in sequence,
which `entries_in` splits. Raises `MalformedEntryError` where the file stops being a manifest.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from birthmark.manifests.errors import MalformedEntryError, PackedManifestError
from birthmark.pki.certificates import kind_of
from birthmark.pki.der import is_der
from birthmark.text_file_encodings import plain_text, to_utf_8, utf_16_of

MAX_ENTRY_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024
_BETWEEN = re.compile(rb"\}\s*+,\s*+(?=\{)")
_AT_THE_END = re.compile(rb"\}\s*+,\s*+\Z")
_MAX_BETWEEN_BYTES = 64
_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?\s*+\[\s*+")
_ENROLLMENT = (b'"registrationId"', b'"attestation"')
_PACKED = {b"\x1f\x8b": ("gzip", "gunzip"), b"PK": ("ZIP", "unzip"), b"BZ": ("bzip2", "bunzip2")}
_PACKED |= {b"\xfd7": ("xz", "unxz"), b"(\xb5": ("zstd", "unzstd")}


@dataclass(frozen=True, slots=True)
class ManifestChunk:
    """The bytes of some entries, the number of the first, from 1, and its file offset."""

    place: int
    offset: int
    data: bytes

    def entries(self) -> Iterator[bytes]:
        """Yield the bytes of each entry."""
        at = 0
        for between in _BETWEEN.finditer(self.data):
            yield self.data[at : between.start() + 1]
            at = between.end()
        yield self.data[at:]

    @property
    def count(self) -> int:
        return len(_BETWEEN.findall(self.data)) + 1


def pieces_of(file: BinaryIO, called: str = "") -> Iterator[ManifestChunk]:
    """Yield the entries of a manifest in order, many per chunk; `called` is the file's display name."""
    held, place = _begin(file, called or _name_of(file)), 1
    read = len(held)
    held = held[_BEGIN.match(held).end() :]  # type: ignore[union-attr]  # checked by _begin
    while chunk := file.read(_PIECE_BYTES):
        held += chunk
        read += len(chunk)
        if (found := _find_last_boundary(held)) is not None:
            piece = ManifestChunk(place, read - len(held), held[: found[0]])
            yield piece
            held, place = held[found[1] :], place + piece.count
        if len(held) > MAX_ENTRY_BYTES + _PIECE_BYTES:
            raise MalformedEntryError(place=place, detail=TOO_LARGE)
    yield from _end(held, place, read - len(held))


def count_of(file: BinaryIO) -> int:
    """Return the number of entries in a manifest, valid or not."""
    return sum(piece.count for piece in pieces_of(file))


TOO_LARGE = f"an entry is larger than {MAX_ENTRY_BYTES} bytes"


def _begin(file: BinaryIO, called: str) -> bytes:
    """Return the first bytes after checking that they begin a list."""
    held = file.read(_PIECE_BYTES)
    if (packed := _PACKED.get(held[:2])) is not None:
        raise PackedManifestError(form=packed[0], unpack=packed[1], file=called)
    said = plain_text(held)
    if said.lstrip().startswith(b"-----BEGIN ") or is_der(held):
        kind = kind_of(said)
        by = "device.pem" if kind.endswith(("key", "request")) else shlex.quote(called)
        hint = f", or enroll one device by its certificate: `birthmark device enroll --cert {by}`"
        detail = f"the file {kind.removeprefix('it ') or 'is a certificate'}, not a list"
        raise MalformedEntryError(place=1, detail=detail, hint=hint)
    if all(name in said[:MAX_ENTRY_BYTES] for name in _ENROLLMENT):
        hint = ", or enroll each device by its certificate: `birthmark device enroll --cert device.pem`"
        raise MalformedEntryError(place=1, detail="the file is a list of DPS enrollments, not of chips", hint=hint)
    if (codec := utf_16_of(held)) is not None:
        hint = f", or write it so: `{to_utf_8(called, codec.upper())}`"
        raise MalformedEntryError(place=1, detail=f"the file is {codec[:6].upper()}, not UTF-8", hint=hint)
    if _BEGIN.match(held) is None:
        raise MalformedEntryError(place=1, detail="the file does not start with [ as a list")
    return held


def _name_of(file: BinaryIO) -> str:
    return str(getattr(file, "name", "FILE"))


def _end(held: bytes, position: int, offset: int) -> Iterator[ManifestChunk]:
    """Yield the rest before the closing bracket."""
    last = held.rstrip().removesuffix(b"\x1a").rstrip()  # DOS end-of-file mark
    is_closed = last.endswith(b"]")
    last = last.removesuffix(b"]").rstrip()
    if not is_closed:  # an incomplete entry is dropped
        found = _find_last_boundary(held)
        if found is not None:
            piece = ManifestChunk(position, offset, held[: found[0]])
            yield piece
            position += piece.count
        raise MalformedEntryError(place=position, detail="the list does not end with ]; it may be truncated")
    if last:
        entries, brace, tail = last.rpartition(b"}")
        is_followed = bool(brace) and tail.lstrip().startswith(b",")
        piece = ManifestChunk(position, offset, entries + brace if is_followed else last)
        yield piece
        if is_followed and (more := tail.strip(b", \t\r\n")):
            detail = f"the text after the last entry, {more[:40].decode(errors='replace')}, is not an entry"
            raise MalformedEntryError(place=position + piece.count, detail=detail)
        if is_followed:
            raise MalformedEntryError(place=position + piece.count, detail="a comma is not followed by an entry")


def _find_last_boundary(held: bytes) -> tuple[int, int] | None:
    """Return the end of the last complete entry and the start of the next; None if there is no boundary."""
    begin = held.rfind(b"{")
    while begin > 0:
        window = max(0, begin - _MAX_BETWEEN_BYTES)
        if (between := _AT_THE_END.search(held, window, begin)) is not None:
            return between.start() + 1, begin
        begin = held.rfind(b"{", 0, begin)
    return None
