"""Read and verify bundles, line by line.

Input: the lines of a file, and the trust configuration. Output: for each chip's line its `ManifestEntry`, or the
`ManifestError`. An invalid line is rejected individually. A missing, moved or added line is detected at the next, which
contains the digest of its predecessor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.chip_proof_rules import is_signed
from birthmark.manifests.bundle.single_line_checks import BundleOpening, LineChecker, LineFinding, find_opening
from birthmark.manifests.duplicate_chips import Marks
from birthmark.manifests.errors import (
    DuplicateEntryError,
    MalformedEntryError,
    ManifestError,
    NotWholeError,
    SignatureBrokenError,
    SignerNotValidError,
    StationUnknownError,
)
from birthmark.manifests.manifest_entry import Judge, ManifestEntry

_NOTHING = (b"", b"\x1a")
"""Lines that editors add, and the DOS end-of-file mark."""


@dataclass(slots=True)
class _Section:
    """A bundle of the file, from its opening to its seal."""

    opened: BundleOpening
    head: str | None
    """Digest of the previous line, which the next must contain; None if that line could not be read."""
    last_seq: int = 0
    signed: int = 0
    spoilt: int = 0
    """Number of chip lines that the station signed, and of those unsigned or unreadable."""
    trouble: ManifestError | None = None
    """Error for which all lines of the bundle are rejected."""

    @property
    def name(self) -> str:
        return self.opened.name

    def skip(self) -> None:
        """Skip a rejected line: the next one cannot be required to contain its digest."""
        self.spoilt += 1
        self.head = None

    def is_followed_by(self, line: line_format.ChipLine | line_format.SealLine) -> bool:
        """Return whether no line is missing before this one; after an unreadable line, only the seal can tell."""
        if self.head is None:
            return line.seq > self.last_seq
        return line.seq == self.last_seq + 1 and line.previous == self.head

    def follow(self, line: line_format.ChipLine, head: str) -> None:
        """Advance after a line that the station signed."""
        self.last_seq, self.head = line.seq, head
        self.signed += 1


@dataclass(slots=True)
class BundleVerifier:
    """Verifies lines of consecutive files; detects repeated chips and boards."""

    trust: BundleTrust
    judge: Judge | None = None
    place: int = 0
    """Number of chip lines, over all files."""
    _files: list[tuple[int, str]] = field(default_factory=lambda: [(0, "")])
    _section: _Section | None = None
    _marks: Marks = field(default_factory=Marks)
    _looker: LineChecker = field(init=False)

    def __post_init__(self) -> None:
        self._looker = LineChecker(self.trust, self.judge)

    def begin(self, name: str) -> None:
        """Begin a file with this display name."""
        self._files.append((self.place, name))

    def read(self, raw: bytes, looked: LineFinding | None = None) -> Iterator[ManifestEntry | ManifestError]:
        """Verify a line; yield exactly one result for a chip's line, and the errors of other lines.

        `looked` is an earlier check of the line; it is used only if it is for the same bytes and opening.
        """
        try:
            signed = line_format.parse_line(raw)
        except MalformedEntryError as error:
            self.place += 1
            yield self._placed(error)
            if self._section is not None:
                self._section.skip()
            return
        match signed.line:
            case line_format.OpeningLine():
                yield from self.end()
                self._section = self._opened(signed, signed.line, line_format.digest(raw))
            case line_format.SealLine():
                yield from self._sealed(signed, signed.line)
            case line_format.ChipLine():
                self.place += 1
                try:
                    yield self._chip(signed, signed.line, line_format.digest(raw), looked)
                except ManifestError as error:
                    yield self._placed(error)

    def end(self) -> Iterator[ManifestError]:
        """End a file, or a bundle in it; yield what it lacks."""
        section, self._section = self._section, None
        if section is not None:
            if section.trouble is not None and not section.spoilt:
                yield self._placed(section.trouble)
            yield self._placed(NotWholeError(station=section.name, detail="it has no seal"))

    # ---- inside

    def _opened(self, signed: line_format.SignedLine, line: line_format.OpeningLine, head: str) -> _Section | None:
        if (opened := find_opening(line)) is None:
            return None
        section, certificate, at = _Section(opened, head), opened.certificate, line_format.parse_time(line.at)
        if certificate not in self.trust.stations:
            thumbprint = certificate.thumbprint.hex()
            section.trouble = StationUnknownError(station=line.station, thumbprint=thumbprint)
        elif not is_signed(signed, opened.key):
            section.trouble = SignatureBrokenError(signer=line.station, unique_id="its opening line")
        elif not certificate.not_before <= at <= certificate.not_after:
            section.trouble = SignerNotValidError(provisioned_at=at.isoformat(), signer=line.station)
        return section

    def _chip(
        self, signed: line_format.SignedLine, line: line_format.ChipLine, head: str, looked: LineFinding | None
    ) -> ManifestEntry:
        section = self._section
        if section is None:
            raise MalformedEntryError(detail="no opening line of its bundle precedes it")
        if section.trouble is not None:
            section.skip()
            raise _again(section.trouble)
        if looked is None or looked.about != section.opened.line_key(head):
            looked = self._looker.check_line(signed, line, head, section.opened)
        if not looked.is_signed or looked.said is None:
            section.skip()
            raise SignatureBrokenError(signer=section.name, unique_id=line.board[: line_format.MAX_NAME_CHARS])
        is_next = section.is_followed_by(line)
        section.follow(line, head)
        if not is_next:
            raise MalformedEntryError(detail="it does not follow the line before: a line was removed, added or moved")
        if isinstance(looked.said, ManifestError):
            raise looked.said
        self._check_new(line)
        return looked.said

    def _check_new(self, line: line_format.ChipLine) -> None:
        before = {
            what: self._marks.add(what, said, self.place) for what, said in (("board", line.board), ("chip", line.key))
        }
        for what, place in before.items():
            if place is not None:
                detail = f"entry {self._told(place)} has the same {what}"
                raise DuplicateEntryError(what="board", unique_id=line.board, detail=detail)

    def _sealed(self, signed: line_format.SignedLine, line: line_format.SealLine) -> Iterator[ManifestError]:
        section = self._section
        self._section = None
        if section is None:
            yield self._placed(MalformedEntryError(detail="a seal without a bundle before it"))
            return
        if section.trouble is not None:
            if not section.spoilt:
                yield self._placed(section.trouble)
            return
        if not is_signed(signed, section.opened.key):
            yield self._placed(NotWholeError(station=section.name, detail="the signature of its seal is not valid"))
        elif line.bundle != section.opened.bundle:
            yield self._placed(NotWholeError(station=section.name, detail="its seal belongs to another bundle"))
        elif not section.is_followed_by(line) or line.chips - section.signed > section.spoilt:
            there = section.signed + section.spoilt
            detail = f"its seal counts {line.chips} chips, but {there} lines precede it"
            yield self._placed(NotWholeError(station=section.name, detail=detail))

    def _placed(self, error: ManifestError) -> ManifestError:
        error.add_facts(place=self._told(self.place))
        return error

    def _told(self, position: int) -> str:
        """Return the display number of a chip's line: in its file, which is named if there are several."""
        before, name = next((one for one in reversed(self._files) if one[0] < position), (0, self._files[-1][1]))
        return f"{position - before} of {name}" if name else str(position - before)


def _again(error: ManifestError) -> ManifestError:
    """Return the same error for another entry."""
    facts = {name: getattr(error, name) for name in error.facts if hasattr(error, name) and name != "place"}
    return type(error)(**facts)


def raw_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a bundle without line ends; an overlong line is cut just above the limit."""
    return (raw for raw, _ in sized_lines(file))


def sized_lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the same lines with their size in the file, including preceding empty lines."""
    skipped = 0
    while line := file.readline(line_format.MAX_LINE_BYTES + 2):
        whole, size = line.endswith(b"\n"), len(line)
        while not whole and len(line) > line_format.MAX_LINE_BYTES:
            rest = file.readline(line_format.MAX_LINE_BYTES)
            whole, size = rest.endswith(b"\n") or not rest, size + len(rest)
        raw = line.removesuffix(b"\n").removesuffix(b"\r")
        skipped += size
        if raw not in _NOTHING:
            yield raw, skipped
            skipped = 0


def verify_file(
    file: BinaryIO, verifier: BundleVerifier, out: IO[bytes] | None = None
) -> Iterator[ManifestEntry | ManifestError]:
    """Yield the entry or error of each chip's line, and finally what the file lacks.

    The file is one of several for this verifier; its lines are copied unchanged to `out`.
    """
    for raw in raw_lines(file):
        if out is not None:
            out.write(raw + b"\n")
        yield from verifier.read(raw)
    yield from verifier.end()


def count_chips(file: BinaryIO) -> int:
    """Return the number of lines other than openings and seals, without verification."""
    others = (f'{{"format":"{line_format.FORMAT} open"'.encode(), f'{{"format":"{line_format.FORMAT} seal"'.encode())
    return sum(not raw.startswith(others) for raw in raw_lines(file))
