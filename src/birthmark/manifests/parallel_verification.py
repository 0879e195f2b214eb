"""Manifest verification: in order, on all cores for long files, with 24 bytes of memory per chip."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, BinaryIO, TypeAlias

from birthmark.manifests.duplicate_chips import DuplicateCheck, Verdict
from birthmark.manifests.errors import ManifestError
from birthmark.manifests.manifest_chunks import ManifestChunk, pieces_of
from birthmark.manifests.manifest_entry import Judge, ManifestEntry
from birthmark.manifests.microchip_verifier import ManifestTrust, ManifestVerifier
from birthmark.manifests.process_pool import PoolTask, process_pieces

Told: TypeAlias = tuple[type[ManifestError], dict[str, str]] | tuple[Any, ...]
"""Result sent between processes: an error's class and facts, or the fields of an `ManifestEntry`."""


def verify_all(file: BinaryIO, trust: ManifestTrust, judge: Judge | None = None) -> Iterator[Verdict]:
    """Yield each verified entry or its error. Raise only if the file itself becomes unreadable.

    With a `judge`, each entry includes its doubts, evaluated in the verifying process.
    """
    once = DuplicateCheck()
    return map(once.check, _verdicts(file, trust, judge), count(1))


def _verdicts(file: BinaryIO, trust: ManifestTrust, judge: Judge | None) -> Iterator[Verdict]:
    reader = _reader(trust, judge)
    work = PoolTask(_reader, (trust, judge), _where, _tell)
    for piece, told in process_pieces(file, _yield_error_last(pieces_of(file)), work):
        if told is None:
            yield from _read(reader, piece)
        else:
            yield from map(unpack_verdict, told)


def _yield_error_last(pieces: Iterator[ManifestChunk]) -> Iterator[ManifestChunk | Exception]:
    """Yield the pieces, then the error that ends the file, to be raised after all pieces before it."""
    try:
        yield from pieces
    except ManifestError as error:
        yield error


def _read(reader: "_Reader", piece: ManifestChunk) -> Iterable[Verdict]:
    return (reader.read(place, raw) for place, raw in enumerate(piece.entries(), piece.place))


def _where(piece: ManifestChunk) -> tuple[int, int, tuple[Any, ...]]:
    return piece.offset, len(piece.data), (piece.place, piece.offset)


def _tell(reader: "_Reader", data: bytes, position: int, offset: int) -> list[Told]:
    return [pack_verdict(verdict) for verdict in _read(reader, ManifestChunk(position, offset, data))]


def pack_verdict(verdict: Verdict) -> Told:
    """Return a verdict in the form sent to another process."""
    if isinstance(verdict, ManifestError):
        return type(verdict), dict(verdict.facts)
    return tuple(getattr(verdict, name) for name in _FIELDS)


def unpack_verdict(told: Told) -> Verdict:
    """Return the verdict received from another process."""
    return told[0](**told[1]) if isinstance(told[0], type) else ManifestEntry(*told)


_FIELDS = tuple(ManifestEntry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads entries in this process or another."""

    verifier: ManifestVerifier
    judge: Judge | None

    def read(self, position: int, raw: bytes) -> Verdict:
        try:
            entry = self.verifier.verify(position, raw)
        except ManifestError as error:
            return error
        return entry if self.judge is None else replace(entry, doubts=self.judge(entry))


def _reader(trust: ManifestTrust, judge: Judge | None) -> _Reader:
    return _Reader(ManifestVerifier(trust), judge)
