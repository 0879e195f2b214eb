"""Verify a bundle of any length: lines are looked at by all cores, and judged in their order by one.

A piece is some whole lines and the opening before them. What a process was lost with is done here, and so is a short
bundle, and a line so long that it is none.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from birthmark.manifests.bundle import wire
from birthmark.manifests.bundle.line_checks import BundleOpening, LineChecker, LineFinding, opened_by
from birthmark.manifests.bundle.model import BundleTrust
from birthmark.manifests.bundle.verifier import BundleVerifier, raw_lines, sized_lines
from birthmark.manifests.errors import MalformedEntryError, ManifestError
from birthmark.manifests.model import Judge, ManifestEntry
from birthmark.manifests.process_pool import PoolTask, told_by_all
from birthmark.manifests.verification import Told, as_told, as_verdict

_PIECE_BYTES = 256 * 1024
_OPENING = f'{{"format":"{wire.FORMAT} open"'.encode()
_Seen: TypeAlias = tuple[str, bool, Told | None] | None
"""What goes from process to process of each line: of a chip's a `LineFinding`, of the others nothing."""


@dataclass(frozen=True, slots=True)
class _BundleChunk:
    offset: int
    size: int
    lines: list[bytes]
    opening: bytes | None
    """The opening that counts where the piece begins."""


def verify_all(
    file: BinaryIO, trust: BundleTrust, judge: Judge | None = None
) -> Iterator[ManifestEntry | ManifestError]:
    """Yield of each chip's line what it says, or what is wrong with it; at the end what the file lacks.

    With a `judge`, each entry has the doubts about it.
    """
    verifier, work = BundleVerifier(trust, judge), PoolTask(LineChecker, (trust, judge), _where, _look)
    for piece, told in told_by_all(file, _pieces_of(file), work):
        for raw, seen in zip(piece.lines, told or [None] * len(piece.lines), strict=True):
            yield from verifier.read(raw, _as_looked(seen))
    yield from verifier.end()


def _pieces_of(file: BinaryIO) -> Iterator[_BundleChunk]:
    at, begin = 0, 0
    lines: list[bytes] = []
    opening = before = None
    for raw, size in sized_lines(file):
        if size > wire.MAX_LINE_BYTES + 1 or at - begin > _PIECE_BYTES:
            yield _BundleChunk(begin, at - begin, lines, before)
            begin, lines, before = at, [], opening
        at += size
        lines.append(raw)
        if size > wire.MAX_LINE_BYTES + 1:
            yield _BundleChunk(begin, 0, lines, None)
            begin, lines = at, []
        elif raw.startswith(_OPENING):
            opening = raw
    yield _BundleChunk(begin, at - begin, lines, before)


def _where(piece: _BundleChunk) -> tuple[int, int, tuple[Any, ...]]:
    return piece.offset, piece.size, (piece.opening, len(piece.lines))


def _look(looker: LineChecker, data: bytes, opening: bytes | None, count: int) -> list[_Seen]:
    """Return what each of `count` lines says; of one that is not in `data`, nothing."""
    opened = None if opening is None else _opened_by(opening)
    seen: list[_Seen] = []
    for raw in raw_lines(io.BytesIO(data)):
        if raw.startswith(_OPENING):
            opened = _opened_by(raw)
        seen.append(None if opened is None else _seen(looker, raw, opened))
    return seen + [None] * (count - len(seen))


def _opened_by(raw: bytes) -> BundleOpening | None:
    try:
        line = wire.parse_line(raw).line
    except MalformedEntryError:
        return None
    return opened_by(line) if isinstance(line, wire.OpeningLine) else None


def _seen(looker: LineChecker, raw: bytes, opened: BundleOpening) -> _Seen:
    try:
        signed = wire.parse_line(raw)
    except MalformedEntryError:
        return None
    if not isinstance(signed.line, wire.ChipLine) or opened.certificate not in looker.trust.stations:
        return None
    looked = looker.look(signed, signed.line, wire.digest(raw), opened)
    return looked.about, looked.is_signed, None if looked.said is None else as_told(looked.said)


def _as_looked(seen: _Seen) -> LineFinding | None:
    if seen is None:
        return None
    about, is_signed, told = seen
    return LineFinding(about, is_signed, None if told is None else as_verdict(told))
