"""Assignment memory of a secure element: the assigned hub and device ID, kept across restarts.

In: the bytes of a small data object (slot 8 of an ATECC608 has 416), padded with zero or 0xFF bytes.

Out: an `AssignmentMemory` in one of two layouts; a blank one if nothing was written; an error for other bytes.

Birthmark's layout is compact JSON, version first, with a counter so that the newer of two copies is used after an
interrupted write. The how-to's layout, which its firmware reads, has two fields of zero-padded ASCII: `serial[20]` at
0, the registration ID, and `hub[48]` at 20. The bytes after them belong to the firmware and are kept. The layouts are
distinct: a hub name has no quotes.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from birthmark.secure_elements.errors import (
    ElementDataTooLargeError,
    ElementLayoutTooSmallError,
    ElementMemoryInvalidError,
)
from birthmark.untrusted_json_and_text import decode_json

MAX_MEMORY_BYTES = 4096
SERIAL_BYTES = 20
HUB_BYTES = 48
_VERSION = 1
_PADDING = b"\0\xff"
_HOWTO_BYTES = SERIAL_BYTES + HUB_BYTES
# Characters of an Azure device ID, and of a host name.
_SERIAL = re.compile(r"[A-Za-z0-9\-.%_*?!(),:=@$']+")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-.]*")


class Layout(StrEnum):
    """Layout of the assignment memory."""

    BIRTHMARK = "birthmark"
    HOWTO = "howto"


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Hub assignment to reconnect without DPS. `scope` prevents use with another DPS."""

    hub: str
    device: str
    scope: str = ""


@dataclass(frozen=True, slots=True)
class AssignmentMemory:
    """Content of the object; `layout` is None if it is blank. A device of the how-to may not have a hub yet."""

    layout: Layout | None = None
    device: str = ""
    hub: str = ""
    scope: str = ""
    counter: int = 0
    rest: bytes = b""
    """Firmware data after the two fields of the how-to's layout."""

    @property
    def assignment(self) -> Assignment | None:
        return Assignment(self.hub, self.device, self.scope) if self.hub and self.device else None


class _StoredAssignment(msgspec.Struct, frozen=True):
    v: int
    n: int
    h: str
    d: str
    s: str = ""


def read_memory(raw: bytes) -> AssignmentMemory:
    """Parse the memory. Raise `ElementMemoryInvalidError` for an unknown layout."""
    if len(raw) > MAX_MEMORY_BYTES:
        raise ElementMemoryInvalidError(detail=f"{len(raw)} bytes")
    if is_blank(raw):
        return AssignmentMemory()
    return _howto(raw) or _birthmark(raw)


def is_blank(raw: bytes) -> bool:
    """Return whether there is only padding."""
    return not raw.strip(_PADDING)


def write_memory(assignment: Assignment, layout: Layout, over: AssignmentMemory, limit: int, label: str) -> bytes:
    """Return exactly `limit` bytes that replace `over`.

    Raise `ElementDataTooLargeError`, or `ElementLayoutTooSmallError` for a value that does not fit the how-to's fields.
    """
    if layout is Layout.HOWTO:
        raw = _field("device id", assignment.device, SERIAL_BYTES, _SERIAL)
        raw += _field("hub", assignment.hub, HUB_BYTES, _HUB) + over.rest
    else:
        stored = _StoredAssignment(_VERSION, over.counter + 1, assignment.hub, assignment.device, assignment.scope)
        raw = msgspec.json.encode(stored)
    if len(raw) > limit:
        raise ElementDataTooLargeError(size=len(raw), limit=limit, label=label)
    return raw.ljust(limit, b"\0")


def _birthmark(raw: bytes) -> AssignmentMemory:
    try:
        stored = decode_json(raw.rstrip(_PADDING), _StoredAssignment)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ElementMemoryInvalidError(detail="it has neither Birthmark's layout nor the how-to's") from error
    if stored.v != _VERSION or not stored.h or not stored.d:
        raise ElementMemoryInvalidError(detail=f"version {stored.v}")
    return AssignmentMemory(Layout.BIRTHMARK, stored.d, stored.h, stored.s, stored.n)


def _howto(raw: bytes) -> AssignmentMemory | None:
    """Parse two fields with one name each, the second possibly blank; None for anything else."""
    if len(raw) < _HOWTO_BYTES:
        return None
    serial = _text(raw[:SERIAL_BYTES], _SERIAL)
    hub = _text(raw[SERIAL_BYTES:_HOWTO_BYTES], _HUB)
    if not serial or hub is None:
        return None
    return AssignmentMemory(Layout.HOWTO, serial, hub, rest=raw[_HOWTO_BYTES:])


def _text(raw: bytes, allowed: re.Pattern[str]) -> str | None:
    """Return the text of a padded field, "" for a blank one; None for other content."""
    text = raw.rstrip(_PADDING).decode("ascii", "replace")
    return text if not text or allowed.fullmatch(text) else None


def _field(what: str, text: str, limit: int, allowed: re.Pattern[str]) -> bytes:
    if len(text) > limit or not allowed.fullmatch(text):
        raise ElementLayoutTooSmallError(what=what, text=text[:100], limit=limit)
    return text.encode("ascii").ljust(limit, b"\0")
