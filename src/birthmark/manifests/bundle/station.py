"""A station: a directory with its key, certificate and bundles, and one writing process at a time.

The bundles are `intake-0001.jsonl` and so on; all but the last are sealed. Each line is written and synced completely
before it is reported as recorded. An incomplete last line after a power loss is moved out of the bundle at the next
start. Any other damage stops the work, and nothing is changed.
"""

import contextlib
import itertools
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark import atomic_files, flock
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.chip_intake_errors import (
    BoardOfAnotherChipError,
    BundleDamagedError,
    ChipOfAnotherBoardError,
    NothingTakenError,
    NotThisChipError,
    StationBusyError,
    TakenAlreadyError,
)
from birthmark.manifests.bundle.chip_proof_rules import (
    check_names,
    check_proof,
    is_signed,
    nonce_of,
    station_key,
)
from birthmark.manifests.bundle.intake_records import BundlePosition, ChipIntake
from birthmark.manifests.bundle.line_format import MAX_LINE_BYTES
from birthmark.manifests.bundle.station_identity import StationIdentity, open_identity
from birthmark.manifests.bundle.verifier import raw_lines
from birthmark.manifests.duplicate_chips import Marks
from birthmark.manifests.errors import MalformedEntryError
from birthmark.pki.certificates import CertificateTooLargeError
from birthmark.pki.path_validation import ChainTooLongError
from birthmark.text_file_encodings import to_plain_lines, utf_16_of


def append_line(file: BinaryIO, line: bytes) -> None:
    """Append a line durably; after a failure, the partial line is removed."""
    end = file.seek(0, os.SEEK_END)
    try:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def last_line_of(file: BinaryIO) -> int:
    """Return the start of a possibly torn last line: it has no end, or contains a NUL block.

    A NUL block never reached the disk. If the last line is intact, return the end of the file.
    """
    end = file.seek(0, os.SEEK_END)
    before = file.seek(max(0, end - 2 * MAX_LINE_BYTES))
    tail = file.read()
    begin = tail.rfind(b"\n") + 1
    if begin == len(tail) and b"\0" in tail[tail.rfind(b"\n", 0, -1) + 1 :]:
        begin = tail.rfind(b"\n", 0, -1) + 1
    return before + begin


_PATIENCE = 100
_NAME = re.compile("intake-[0-9]{4,9}\\.jsonl")
_CHALLENGE_BYTES = 32


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """Location of a chip's line."""

    bundle: Path
    line: int


@dataclass(frozen=True, slots=True)
class ProofChallenge:
    """Challenge for a chip: `nonce` binds the next line, and the challenge limits it to one use."""

    challenge: str
    nonce: bytes


@dataclass(slots=True)
class _Tail:
    """End of the current bundle, where lines are appended."""

    path: Path
    bundle: str
    after: str | None = None
    next_seq: int = 0
    head: str = ""
    chips: int = 0
    is_sealed: bool = False

    @property
    def place(self) -> BundlePosition:
        """Position of the next chip; the opening is line 0."""
        return BundlePosition(self.bundle, max(1, self.next_seq))


@dataclass(slots=True)
class Station:
    """An open station; create it with `open_station`."""

    directory: Path
    identity: StationIdentity
    _clock: Clock
    _entropy: Entropy
    torn: Path | None = None
    """File that now holds the partial line of a power loss."""
    _tail: _Tail | None = None
    _marks: Marks = field(default_factory=Marks)
    _files: list[tuple[int, Path]] = field(default_factory=list)
    """Bundles with the number of chips before each."""
    _chips: int = 0

    def ask(self, intake: ChipIntake) -> ProofChallenge:
        """Return the challenge for the chip.

        Raise `NameUnusableError`, `ChainTooLongError`, or a `TakenBeforeError`.
        """
        check_names(board=intake.board, operator=intake.operator)
        if len(intake.chain) > line_format.MAX_CHAIN:
            raise ChainTooLongError(count=len(intake.chain))
        self._refuse_known(intake)
        challenge = self._entropy.token(_CHALLENGE_BYTES).hex()
        return ProofChallenge(challenge, nonce_of(intake, self._current_bundle().place, challenge))

    def take(self, intake: ChipIntake, challenge: ProofChallenge, proof: bytes) -> RecordedLine:
        """Append the chip's line durably. Raise `NotThisChipError` for a proof by another key."""
        tail = self._current_bundle()
        if not check_proof(intake, nonce_of(intake, tail.place, challenge.challenge), proof):
            raise NotThisChipError(subject=intake.chain[0].subject_text, board=intake.board)
        self._open(tail)
        key = line_format.key_digest(intake.chain[0])
        line = line_format.ChipLine(
            seq=tail.next_seq,
            at=line_format.render_time(self._clock.now()),
            previous=tail.head,
            board=intake.board,
            operator=intake.operator,
            key=key,
            chain=tuple([line_format.render_certificate(one) for one in intake.chain]),
            root=intake.root,
            challenge=challenge.challenge,
            proof=line_format.base64(proof),
        )
        self._append(tail, line)
        self._remember(key, intake.board)
        tail.chips += 1
        return RecordedLine(tail.path, tail.next_seq)

    def seal(self) -> tuple[Path, int]:
        """Seal the bundle and return it with its number of chips; idempotent."""
        tail = self._tail
        if tail is None or not tail.chips:
            raise NothingTakenError(directory=self.directory)
        if not tail.is_sealed:
            at = line_format.render_time(self._clock.now())
            self._append(
                tail,
                line_format.SealLine(
                    seq=tail.next_seq, at=at, previous=tail.head, bundle=tail.bundle, chips=tail.chips
                ),
            )
            tail.is_sealed = True
        return tail.path, tail.chips

    # ---- inside

    def load(self) -> None:
        """Read every bundle. Raise `BundleDamagedError`."""
        paths = _bundles_in(self.directory)
        for path in paths:
            with path.open("r+b" if path == paths[-1] else "rb") as file:
                tail = self._read(path, file, may_be_open=path == paths[-1])
            if tail.next_seq:
                self._files.append((self._chips - tail.chips, path))
                self._tail = tail
            else:
                path.unlink()  # empty: torn first line

    def _read(self, path: Path, file: BinaryIO, *, may_be_open: bool) -> _Tail:
        tail, last = _Tail(path, ""), None
        upto = last_line_of(file) if may_be_open else path.stat().st_size
        file.seek(0)
        lines = raw_lines(file)
        try:
            while file.tell() < upto and (raw := next(lines, None)) is not None:
                last = self._advance(tail, raw)
            file.seek(upto)
            if rest := file.read():
                last = self._recover_last_line(tail, file, rest) or last
            if tail.next_seq or not may_be_open:
                self._check_end(tail, last, may_be_open=may_be_open)
        except MalformedEntryError as error:
            raise _damage_error(path, tail.next_seq + 1, error.detail) from error
        return tail

    def _recover_last_line(self, tail: _Tail, file: BinaryIO, rest: bytes) -> line_format.SignedLine | None:
        """Complete an intact last line and return it; move a line torn by a power loss out of the bundle.

        Raise `MalformedEntryError` for an edited file: a power loss leaves the beginning of one line, or NUL bytes.
        """
        raw = rest.rstrip()
        try:
            is_whole = is_signed(line_format.parse_line(raw), self._key)
        except MalformedEntryError:
            is_whole = False
        if is_whole:
            last = self._advance(tail, raw)
            file.truncate(file.seek(len(raw) - len(rest), os.SEEK_END))
            append_line(file, b"")
            return last
        is_complete = raw.endswith(b"}") and b"\0" not in raw
        if is_complete or b"\r" in rest or not (tail.next_seq or rest.startswith(b"{")):
            raise MalformedEntryError(detail="it is not a line or the start of a line of this station")
        if rest != b"\x1a":  # DOS text end mark
            self.torn = atomic_files.backup_path(tail.path, "torn")
            atomic_files.replace(self.torn, rest, 0o644)
        file.truncate(file.seek(-len(rest), os.SEEK_END))
        file.flush()
        os.fsync(file.fileno())
        return None

    def _check_end(self, tail: _Tail, last: line_format.SignedLine | None, *, may_be_open: bool) -> None:
        if last is None or not is_signed(last, self._key):  # covers all before it
            raise MalformedEntryError(detail="before which a line is not of this station")
        if not (tail.is_sealed or may_be_open):
            raise MalformedEntryError(detail="where the seal is missing")

    def _advance(self, tail: _Tail, raw: bytes) -> line_format.SignedLine:
        """Advance behind a line. Raise `MalformedEntryError` for one that this station cannot have written here."""
        signed = line_format.parse_line(raw)
        self._check(tail, signed)
        tail.head, tail.next_seq = line_format.digest(raw), tail.next_seq + 1
        return signed

    def _check(self, tail: _Tail, signed: line_format.SignedLine) -> None:
        line = signed.line
        if line.seq != tail.next_seq or tail.is_sealed:
            raise MalformedEntryError(detail="it does not follow the line before")
        if isinstance(line, line_format.OpeningLine):
            is_ours = line_format.parse_certificate(line.certificate).spki_der == self.identity.certificate.spki_der
            if line.seq or not (is_ours and is_signed(signed, self._key)):
                raise MalformedEntryError(detail="which another station wrote")
            tail.bundle = line.bundle
            return
        if line.previous != tail.head:
            raise MalformedEntryError(detail="before which a line was changed, removed or added")
        if isinstance(line, line_format.SealLine):
            tail.is_sealed = True
            return
        self._remember(line.key, line.board)
        tail.chips += 1

    def _refuse_known(self, intake: ChipIntake) -> None:
        with_chip = self._marks.place_of("chip", line_format.key_digest(intake.chain[0]))
        with_board = self._marks.place_of("board", intake.board)
        if with_chip is None and with_board is None:
            return
        bundle, line, before = self._line_at(with_chip or with_board or 0)
        board, at = before.board, before.at
        if with_chip == with_board:
            raise TakenAlreadyError(bundle=bundle, line=line, board=board, at=at)
        if with_chip is None:
            raise BoardOfAnotherChipError(bundle=bundle, line=line, board=board, at=at)
        subject = intake.chain[0].subject_text
        raise ChipOfAnotherBoardError(
            bundle=bundle, line=line, board=board, at=at, subject=subject, wanted=intake.board
        )

    def _line_at(self, chip: int) -> tuple[Path, int, line_format.ChipLine]:
        """Return the line of the chip with this number, counted over all bundles of the station."""
        before, path = next(one for one in reversed(self._files) if one[0] < chip)
        number = chip - before + 1  # the first line is the header
        with path.open("rb") as file:
            raw = next(itertools.islice(raw_lines(file), number - 1, None))
        return path, number, cast(line_format.ChipLine, line_format.parse_line(raw).line)  # it is such a line

    def _remember(self, key: str, board: str) -> None:
        self._chips += 1
        self._marks.add("chip", key, self._chips)
        self._marks.add("board", board, self._chips)

    def _next_path(self) -> Path:
        last = _number_of(self._files[-1][1]) if self._files else 0
        return self.directory / f"intake-{last + 1:04}.jsonl"

    def _current_bundle(self) -> _Tail:
        """Return the bundle for the next line; it may not be written yet."""
        if self._tail is None or self._tail.is_sealed:
            before = None if self._tail is None else self._tail.head
            self._tail = _Tail(self._next_path(), self._entropy.token(line_format.BUNDLE_ID_BYTES).hex(), before)
        return self._tail

    def _open(self, tail: _Tail) -> None:
        """Write the opening if it is missing."""
        if tail.next_seq:
            return
        line = line_format.OpeningLine(
            seq=0,
            at=line_format.render_time(self._clock.now()),
            after=tail.after,
            bundle=tail.bundle,
            station=self.identity.name,
            certificate=line_format.render_certificate(self.identity.certificate),
        )
        raw = line_format.render_line(line, self.identity.sign)
        atomic_files.replace(tail.path, raw + b"\n", 0o644)
        self._files.append((self._chips, tail.path))
        tail.head, tail.next_seq = line_format.digest(raw), 1

    def _append(self, tail: _Tail, line: line_format.Line) -> None:
        raw = line_format.render_line(line, self.identity.sign)
        if len(raw) > line_format.MAX_LINE_BYTES:  # readers reject it
            raise CertificateTooLargeError(limit=f"{line_format.MAX_LINE_BYTES} bytes with its issuers")
        with tail.path.open("r+b") as file:
            append_line(file, raw)
        tail.head, tail.next_seq = line_format.digest(raw), tail.next_seq + 1

    @property
    def _key(self) -> ec.EllipticCurvePublicKey | None:
        return station_key(self.identity.certificate)


def _damage_error(path: Path, line: int, detail: str) -> BundleDamagedError:
    """Return the error of a damaged bundle; for one that an editor reformatted, with the command that restores it."""
    error = BundleDamagedError(bundle=path, line=line, detail=detail)
    with path.open("rb") as file:
        head = file.readline(2 * MAX_LINE_BYTES)
    if b"\r" in head.rstrip(b"\r\n") or utf_16_of(head) is not None:
        command, copy = to_plain_lines(path, head)
        bundle, aside = shlex.quote(str(path)), shlex.quote(str(error.aside))
        put_back = f"{command} && mv -nT {bundle} {aside} && mv -nT {shlex.quote(str(copy))} {bundle}"
        form = "in UTF-16" if utf_16_of(head) else "with other line endings"
        cause = f"{path} was saved {form}; a station goes on with what it wrote itself."
        error.quote(cause=cause, fix=f"Write it was: `{put_back}`")
    return error


def _bundles_in(directory: Path) -> list[Path]:
    """Return the station's own bundles in order, without copies by another name."""
    return sorted((path for path in directory.glob("intake-*.jsonl") if _NAME.fullmatch(path.name)), key=_number_of)


def _number_of(path: Path) -> int:
    return int(path.stem.removeprefix("intake-"))


@contextmanager
def open_station(
    directory: Path, *, clock: Clock, entropy: Entropy, name: str | None = None, may_begin: bool = True
) -> Iterator[Station]:
    """Open a station, or create it where it is missing, for exclusive use in the block.

    Raise `StationBusyError`, `StationUnusableError`, `BundleDamagedError`, or `NothingTakenError` if it is missing and
    `may_begin` is false.
    """
    if not (may_begin or _bundles_in(directory)):
        raise NothingTakenError(directory=directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = flock.take(directory / ".lock", _PATIENCE)
    if lock is None:
        raise StationBusyError(directory=directory)
    try:
        is_new = not _bundles_in(directory)
        identity = open_identity(directory, name or directory.resolve().name, clock.now(), entropy, is_new=is_new)
        station = Station(directory, identity, clock, entropy)
        station.load()
        yield station
    finally:
        os.close(lock)
