"""The script of docs/howto/provenance.md refuses what our own reader refuses."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from birthmark.manifests.bundle import line_format
from support.chips.intake_world import ROOT, Line, a_chip
from support.pki.pki_builders import a_ca

pytestmark = pytest.mark.system
PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "provenance.md").read_text()
SCRIPT = re.search(r"^```sh file=check-bundle\.sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def check(bundle: Path, line: Line, root: str) -> "subprocess.CompletedProcess[str]":
    assert SCRIPT is not None
    (bundle.parent / "check.sh").write_text(SCRIPT[1])
    (bundle.parent / "root.pem").write_text(root)
    command = ["sh", "check.sh", bundle.name, "station.pem", "root.pem"]
    return subprocess.run(command, cwd=line.directory, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    made = Line(tmp_path / "north")
    made.take(a_chip("chip-1"), "S/N 1, rev. {2}")
    made.take(a_chip("chip-2"), "基板-2")
    return made


def test_names_of_any_kind_are_checked(line: Line) -> None:
    done = check(line.seal(), line, ROOT.certificate.pem())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("S/N 1, rev. {2}  subject=CN=chip-1")
    assert done.stdout.splitlines()[-1] == "2 chips, sealed"


def test_another_maker_is_refused(line: Line) -> None:
    done = check(line.seal(), line, a_ca("Maker Root").certificate.pem())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "line 2: the chip's certificate does not lead to the maker's root"


FORGED: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a line taken out": (lambda b: [b[0], *b[2:]], "line 2: a line before it was changed or taken out"),
    "the seal taken off": (lambda b: b[:-1], "line 3: the bundle is not sealed: it was cut, or is still open"),
    "a name changed": (
        lambda b: [*b[:2], b[2].replace("基板".encode(), b"B"), b[3]],
        "line 3: not signed by this station",
    ),
}


@pytest.mark.parametrize(("forge", "told"), FORGED.values(), ids=FORGED)
def test_what_was_changed_is_refused(line: Line, forge: Callable[[list[bytes]], list[bytes]], told: str) -> None:
    sealed = line.seal()
    sealed.write_bytes(b"".join(one + b"\n" for one in forge(sealed.read_bytes().splitlines())))
    done = check(sealed, line, ROOT.certificate.pem())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == told


def test_a_proof_that_a_lying_station_moved_to_another_board_is_refused(line: Line) -> None:
    opening, first, *_ = line.lines
    moved = line.sign(msgspec.structs.replace(line_format.parse_line(first).line, board="B-9"))
    line.bundle.write_bytes(opening + b"\n" + moved + b"\n")
    done = check(line.bundle, line, ROOT.certificate.pem())
    assert done.stderr.splitlines()[-1] == "line 2: the chip did not prove that it has this key"
