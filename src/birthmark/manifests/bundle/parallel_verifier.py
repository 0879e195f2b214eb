"""Parallel verification of bundles: all cores check lines, one process verifies their order.

A piece is a number of complete lines and the opening before them. Pieces of a lost process, short bundles, and lines
above the maximum length are handled in this process.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.single_line_checks import BundleOpening, LineChecker, LineFinding, find_opening
from birthmark.manifests.bundle.verifier import BundleVerifier, raw_lines, sized_lines
from birthmark.manifests.errors import MalformedEntryError, ManifestError
from birthmark.manifests.manifest_entry import Judge, ManifestEntry
from birthmark.manifests.parallel_verification import Told, pack_verdict, unpack_verdict
from birthmark.manifests.process_pool import PoolTask, process_pieces

_PIECE_BYTES = 256 * 1024
_OPENING = f'{{"format":"{line_format.FORMAT} open"'.encode()
_Seen: TypeAlias = tuple[str, bool, Told | None] | None
"""Result per line sent between processes: a `LineFinding` for a chip's line, None for others."""


@dataclass(frozen=True, slots=True)
class _BundleChunk:
    offset: int
    size: int
    lines: list[bytes]
    opening: bytes | None
    """The opening in effect where the piece begins."""


def verify_all(
    file: BinaryIO, trust: BundleTrust, judge: Judge | None = None
) -> Iterator[ManifestEntry | ManifestError]:
    """Yield the entry or error of each chip's line, and finally what the file lacks.

    With a `judge`, each entry includes its doubts.
    """
    verifier, work = BundleVerifier(trust, judge), PoolTask(LineChecker, (trust, judge), _where, _look)
    for piece, told in process_pieces(file, _pieces_of(file), work):
        for raw, seen in zip(piece.lines, told or [None] * len(piece.lines), strict=True):
            yield from verifier.read(raw, _as_looked(seen))
    yield from verifier.end()


def _pieces_of(file: BinaryIO) -> Iterator[_BundleChunk]:
    at, begin = 0, 0
    lines: list[bytes] = []
    opening = before = None
    for raw, size in sized_lines(file):
        if size > line_format.MAX_LINE_BYTES + 1 or at - begin > _PIECE_BYTES:
            yield _BundleChunk(begin, at - begin, lines, before)
            begin, lines, before = at, [], opening
        at += size
        lines.append(raw)
        if size > line_format.MAX_LINE_BYTES + 1:
            yield _BundleChunk(begin, 0, lines, None)
            begin, lines = at, []
        elif raw.startswith(_OPENING):
            opening = raw
    yield _BundleChunk(begin, at - begin, lines, before)


def _where(piece: _BundleChunk) -> tuple[int, int, tuple[Any, ...]]:
    return piece.offset, piece.size, (piece.opening, len(piece.lines))


def _look(looker: LineChecker, data: bytes, opening: bytes | None, count: int) -> list[_Seen]:
    """Return the results of `count` lines; None for one that is not in `data`."""
    opened = None if opening is None else _opened_by(opening)
    seen: list[_Seen] = []
    for raw in raw_lines(io.BytesIO(data)):
        if raw.startswith(_OPENING):
            opened = _opened_by(raw)
        seen.append(None if opened is None else _seen(looker, raw, opened))
    return seen + [None] * (count - len(seen))


def _opened_by(raw: bytes) -> BundleOpening | None:
    try:
        line = line_format.parse_line(raw).line
    except MalformedEntryError:
        return None
    return find_opening(line) if isinstance(line, line_format.OpeningLine) else None


def _seen(looker: LineChecker, raw: bytes, opened: BundleOpening) -> _Seen:
    try:
        signed = line_format.parse_line(raw)
    except MalformedEntryError:
        return None
    if not isinstance(signed.line, line_format.ChipLine) or opened.certificate not in looker.trust.stations:
        return None
    looked = looker.check_line(signed, signed.line, line_format.digest(raw), opened)
    return looked.about, looked.is_signed, None if looked.said is None else pack_verdict(looked.said)


def _as_looked(seen: _Seen) -> LineFinding | None:
    if seen is None:
        return None
    about, is_signed, told = seen
    return LineFinding(about, is_signed, None if told is None else unpack_verdict(told))
