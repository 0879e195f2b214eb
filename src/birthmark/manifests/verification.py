"""Verify a whole manifest: in order, by all cores where it is long, in memory that grows by 24 bytes a chip."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from struct import Struct
from typing import Any, BinaryIO, TypeAlias

from birthmark.manifests.chunking import ManifestChunk, pieces_of
from birthmark.manifests.errors import DuplicateEntryError, ManifestError
from birthmark.manifests.microchip import ManifestTrust, ManifestVerifier
from birthmark.manifests.model import Judge, ManifestEntry
from birthmark.manifests.process_pool import PoolTask, told_by_all

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


Verdict: TypeAlias = ManifestEntry | ManifestError
Told: TypeAlias = tuple[type[ManifestError], dict[str, str]] | tuple[Any, ...]
"""What goes from process to process: an error's class and facts, or the fields of an `ManifestEntry`."""


def verify_all(file: BinaryIO, trust: ManifestTrust, judge: Judge | None = None) -> Iterator[Verdict]:
    """Yield each entry verified, or what is wrong with it. Raise only where the file itself ends to be readable.

    With a `judge`, each entry has the doubts about it; that is done where the entry is verified.
    """
    once = DuplicateCheck()
    return map(once.check, _verdicts(file, trust, judge), count(1))


def _verdicts(file: BinaryIO, trust: ManifestTrust, judge: Judge | None) -> Iterator[Verdict]:
    reader = _reader(trust, judge)
    work = PoolTask(_reader, (trust, judge), _where, _tell)
    for piece, told in told_by_all(file, _up_to_the_end(pieces_of(file)), work):
        if told is None:
            yield from _read(reader, piece)
        else:
            yield from map(as_verdict, told)


def _up_to_the_end(pieces: Iterator[ManifestChunk]) -> Iterator[ManifestChunk | Exception]:
    """Yield last what ends the file, to be raised after all that stands before it."""
    try:
        yield from pieces
    except ManifestError as error:
        yield error


def _read(reader: "_Reader", piece: ManifestChunk) -> Iterable[Verdict]:
    return (reader.read(place, raw) for place, raw in enumerate(piece.entries(), piece.place))


def _where(piece: ManifestChunk) -> tuple[int, int, tuple[Any, ...]]:
    return piece.offset, len(piece.data), (piece.place, piece.offset)


def _tell(reader: "_Reader", data: bytes, place: int, offset: int) -> list[Told]:
    return [as_told(verdict) for verdict in _read(reader, ManifestChunk(place, offset, data))]


def as_told(verdict: Verdict) -> Told:
    """Return what goes to another process."""
    if isinstance(verdict, ManifestError):
        return type(verdict), dict(verdict.facts)
    return tuple(getattr(verdict, name) for name in _FIELDS)


def as_verdict(told: Told) -> Verdict:
    """Return what came from another process."""
    return told[0](**told[1]) if isinstance(told[0], type) else ManifestEntry(*told)


_FIELDS = tuple(ManifestEntry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads entries, in this process or another."""

    verifier: ManifestVerifier
    judge: Judge | None

    def read(self, place: int, raw: bytes) -> Verdict:
        try:
            entry = self.verifier.verify(place, raw)
        except ManifestError as error:
            return error
        return entry if self.judge is None else replace(entry, doubts=self.judge(entry))


def _reader(trust: ManifestTrust, judge: Judge | None) -> _Reader:
    return _Reader(ManifestVerifier(trust), judge)


class DuplicateCheck:
    """Refuses a chip, and a key, that an entry before had."""

    def __init__(self) -> None:
        self._marks = Marks()

    def check(self, verdict: Verdict, place: int) -> Verdict:
        """Return the verdict, or the refusal of a second one."""
        if isinstance(verdict, ManifestError):
            return verdict
        chip = ("chip", verdict.unique_id)
        marks = (chip,) if verdict.point is None else (chip, ("key", verdict.point))
        for kind, value in marks:
            if (before := self._marks.add(kind, value, place)) is not None:
                detail = f"entry {before} has the same {kind}"
                return DuplicateEntryError(place=place, unique_id=verdict.unique_id, detail=detail)
        return verdict
