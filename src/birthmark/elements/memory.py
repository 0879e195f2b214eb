"""What a chip remembers between starts: to which hub it was assigned, and as which device.

In:   the bytes of a small data object (slot 8 of an ATECC608 has 416), padded with zero or 0xFF bytes.
Out:  an `Assignment`; None when nothing was ever written. Compact JSON, version first, a counter so that the newer of
two copies wins when a write was cut short.
"""

import msgspec

from birthmark.elements.errors import ElementDataTooLargeError, ElementMemoryInvalidError

MAX_MEMORY_BYTES = 4096
_VERSION = 1
_PADDING = b"\0\xff"


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Where to connect without asking DPS again. `scope` guards against another DPS's assignment."""

    hub: str
    device: str
    scope: str = ""


class _Stored(msgspec.Struct, frozen=True):
    v: int
    n: int
    h: str
    d: str
    s: str = ""


def encode_assignment(assignment: Assignment, counter: int, limit: int, label: str) -> bytes:
    """Return exactly `limit` bytes. Raise `ElementDataTooLargeError`."""
    raw = msgspec.json.encode(_Stored(_VERSION, counter, assignment.hub, assignment.device, assignment.scope))
    if len(raw) > limit:
        raise ElementDataTooLargeError(size=len(raw), limit=limit, label=label)
    return raw.ljust(limit, b"\0")


def decode_assignment(raw: bytes) -> tuple[int, Assignment] | None:
    """Return the counter and the assignment, or None for a blank object. Raise `ElementMemoryInvalidError`."""
    if len(raw) > MAX_MEMORY_BYTES:
        raise ElementMemoryInvalidError(detail=f"{len(raw)} bytes")
    text = raw.rstrip(_PADDING)
    if not text:
        return None
    try:
        stored = msgspec.json.decode(text, type=_Stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ElementMemoryInvalidError(detail="no JSON of ours") from error
    if stored.v != _VERSION or not stored.h or not stored.d:
        raise ElementMemoryInvalidError(detail=f"version {stored.v}")
    return stored.n, Assignment(stored.h, stored.d, stored.s)
