"""Detection of duplicate chips and keys in a list of any length, with a compact mark for each."""

import hashlib
from struct import Struct
from typing import TypeAlias

from birthmark.manifests.errors import DuplicateEntryError, ManifestError
from birthmark.manifests.manifest_entry import ManifestEntry

Verdict: TypeAlias = ManifestEntry | ManifestError


_BUCKETS = 1 << 12


_MARK_BYTES = 8


_SLOT = Struct("<8sI")


class Marks:
    """Digests of seen values with their places (1 to 2**32 - 1)."""

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(_BUCKETS)]

    def add(self, kind: str, value: str | bytes, position: int) -> int | None:
        """Record a value; return its earlier position, which is kept, or None."""
        bucket, mark = self._bucket(kind, value)
        before = _place_in(bucket, mark)
        if before is None:
            bucket += _SLOT.pack(mark, position)
        return before

    def place_of(self, kind: str, value: str | bytes) -> int | None:
        """Return the place of a recorded value, or None."""
        return _place_in(*self._bucket(kind, value))

    def _bucket(self, kind: str, value: str | bytes) -> tuple[bytearray, bytes]:
        raw = value.casefold().encode() if isinstance(value, str) else value
        digest = hashlib.blake2b(kind.encode() + b"\0" + raw, digest_size=_MARK_BYTES + 2).digest()
        return self._buckets[int.from_bytes(digest[_MARK_BYTES:]) % _BUCKETS], digest[:_MARK_BYTES]


def _place_in(bucket: bytearray, mark: bytes) -> int | None:
    at = bucket.find(mark)
    while at >= 0 and at % _SLOT.size:  # across two, or inside a place
        at = bucket.find(mark, at + 1)
    if at < 0:
        return None
    place: int = _SLOT.unpack_from(bucket, at)[1]
    return place


class DuplicateCheck:
    """Rejects a chip or key that an earlier entry contained."""

    def __init__(self) -> None:
        self._marks = Marks()

    def check(self, verdict: Verdict, position: int) -> Verdict:
        """Return the verdict, or the error of a duplicate."""
        if isinstance(verdict, ManifestError):
            return verdict
        chip = ("chip", verdict.unique_id)
        marks = (chip,) if verdict.point is None else (chip, ("key", verdict.point))
        for kind, value in marks:
            if (before := self._marks.add(kind, value, position)) is not None:
                detail = f"entry {before} has the same {kind}"
                return DuplicateEntryError(place=position, unique_id=verdict.unique_id, detail=detail)
        return verdict
