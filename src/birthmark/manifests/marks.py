"""Which chips, keys and boards were seen, and where: 12 bytes each, so that millions fit beside everything else.

A mark is 76 bits of a BLAKE2b digest: 12 choose a bucket, 64 stand in it with the place. Of ten million, two are alike
by chance once in a thousand million files; the later is refused then, never believed.
"""

import hashlib
from struct import Struct

_BUCKETS = 1 << 12
_MARK_BYTES = 8
_SLOT = Struct("<8sI")


class Marks:
    """Marks with their places (1 to 2**32 - 1)."""

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(_BUCKETS)]

    def add(self, kind: str, value: str | bytes, place: int) -> int | None:
        """Remember a value; return where it was seen before, which stays, or None."""
        bucket, mark = self._bucket(kind, value)
        before = _place_in(bucket, mark)
        if before is None:
            bucket += _SLOT.pack(mark, place)
        return before

    def place_of(self, kind: str, value: str | bytes) -> int | None:
        """Return where a value was seen."""
        return _place_in(*self._bucket(kind, value))

    def _bucket(self, kind: str, value: str | bytes) -> tuple[bytearray, bytes]:
        raw = value.casefold().encode() if isinstance(value, str) else value
        digest = hashlib.blake2b(kind.encode() + b"\0" + raw, digest_size=_MARK_BYTES + 2).digest()
        return self._buckets[int.from_bytes(digest[_MARK_BYTES:]) % _BUCKETS], digest[:_MARK_BYTES]


def _place_in(bucket: bytearray, mark: bytes) -> int | None:
    at = bucket.find(mark)
    while at >= 0 and at % _SLOT.size:  # across two slots, or in a place
        at = bucket.find(mark, at + 1)
    if at < 0:
        return None
    place: int = _SLOT.unpack_from(bucket, at)[1]
    return place
