"""A bundle that several processes look at is judged as one that a single reader reads, whatever stands in it."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from birthmark.manifests import process_pool
from birthmark.manifests.bundle import line_format, parallel_verifier
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.single_line_checks import BundleOpening, LineChecker, LineFinding, find_opening
from birthmark.manifests.bundle.verifier import BundleVerifier
from birthmark.manifests.errors import SignatureBrokenError
from birthmark.manifests.manifest_entry import ManifestEntry
from support.chips.intake_world import Line, verified

from .test_bundle import REFUSED, Spoil


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    made = Line(tmp_path_factory.mktemp("north"))
    made.sealed(3)
    return made


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have every piece, of a line or two, done as a process does it; tell of each how many lines were looked at."""
    counts: list[int] = []

    def told_by_one(file: BinaryIO, pieces: Iterable[Any], work: Any) -> Iterator[tuple[Any, Any]]:
        assert isinstance(file, io.BytesIO)
        made, whole = work.make(*work.arguments), file.getvalue()
        for piece in pieces:
            offset, size, rest = work.where(piece)
            told = work.do(made, whole[offset : offset + size], *rest)
            counts.append(sum(one is not None for one in told))
            yield piece, told

    monkeypatch.setattr(parallel_verifier, "process_pieces", told_by_one)
    monkeypatch.setattr(parallel_verifier, "_PIECE_BYTES", 1500)
    return counts


def opened(line: Line) -> BundleOpening:
    opening = line_format.parse_line(line.lines[0]).line
    assert isinstance(opening, line_format.OpeningLine)
    said = find_opening(opening)
    assert said is not None
    return said


@pytest.mark.parametrize(("spoil", "told"), REFUSED.values(), ids=REFUSED)
def test_what_was_changed_is_refused_and_nothing_else(
    line: Line, looked_at: list[int], spoil: Spoil, told: list[str]
) -> None:
    assert verified(spoil(line.lines), line.trust) == told
    assert looked_at


def test_every_chip_of_a_good_bundle_is_looked_at_elsewhere(line: Line, looked_at: list[int]) -> None:
    assert verified(line.lines, line.trust) == ["CHIP-0", "CHIP-1", "CHIP-2"]
    assert (sum(looked_at), len(looked_at) > 1) == (3, True)


def test_a_line_too_long_to_be_one_is_read_by_nobody_else(line: Line, looked_at: list[int]) -> None:
    first, *rest = line.lines
    told = verified([first, b"{" + b"x" * (3 * line_format.MAX_LINE_BYTES), *rest], line.trust)
    assert told == ["manifest.malformed", "CHIP-0", "CHIP-1", "CHIP-2"]
    assert sum(looked_at) == 3


def test_what_was_found_out_under_another_opening_does_not_count(line: Line, tmp_path: Path) -> None:
    other = Line(tmp_path / "south")
    other.sealed(1, "other")
    trust = BundleTrust((*line.trust.stations, *other.trust.stations), line.trust.roots)
    signed = line_format.parse_line(line.lines[1])
    assert isinstance(signed.line, line_format.ChipLine)
    looked = LineChecker(trust).check_line(signed, signed.line, line_format.digest(line.lines[1]), opened(line))
    assert isinstance(looked.said, ManifestEntry)
    verifier = BundleVerifier(trust)
    list(verifier.read(other.lines[0]))
    (told,) = verifier.read(line.lines[1], looked)
    assert isinstance(told, SignatureBrokenError)


def test_what_was_found_out_of_other_bytes_does_not_count(line: Line) -> None:
    verifier = BundleVerifier(line.trust)
    list(verifier.read(line.lines[0]))
    of_another = LineFinding(opened(line).line_key(line_format.digest(line.lines[2])), is_signed=False, said=None)
    (told,) = verifier.read(line.lines[1], of_another)
    assert isinstance(told, ManifestEntry)


def test_processes_say_the_same_as_one(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bundle.jsonl"
    lines = [*line.lines[:2], line.lines[2].replace(b"CHIP-1", b"CHIP-9"), *line.lines[3:]] * 2
    file.write_bytes(b"".join(one + b"\n" for one in lines))

    def told() -> list[object]:
        with file.open("rb") as raw:
            found = list(parallel_verifier.verify_all(raw, line.trust))
        return [one if isinstance(one, ManifestEntry) else (one.code, one.facts) for one in found]

    alone = told()
    monkeypatch.setattr(process_pool, "FEW", 1)
    monkeypatch.setattr(parallel_verifier, "_PIECE_BYTES", 1500)
    assert told() == alone
    assert len(alone) == 6
