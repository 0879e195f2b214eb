"""The writing side: what is taken in, what is refused and leaves nothing behind, what a power loss leaves."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from birthmark.errors import BirthmarkError
from birthmark.manifests.bundle import chip_intake_errors
from birthmark.manifests.bundle.intake_records import ChipIntake
from birthmark.manifests.bundle.station import open_station
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import CertificateTooLargeError
from birthmark.pki.path_validation import ChainTooLongError
from support.chips.intake_world import Line, a_chip, a_wish, take, verified
from support.pki.pki_builders import a_device


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "north")


def test_the_first_use_makes_a_key_for_its_owner_alone(line: Line) -> None:
    line.take(a_chip())
    assert stat.S_IMODE((line.directory / "station.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(line.directory.stat().st_mode) == 0o700


def test_a_chip_that_is_copied_without_its_key_is_not_taken_in(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    before = line.bundle.read_bytes()
    with pytest.raises(chip_intake_errors.NotThisChipError):
        line.take(a_chip("chip-2"), "B-2", signer=a_chip("chip-3"))
    assert line.bundle.read_bytes() == before


def test_a_refused_first_chip_begins_no_bundle(line: Line) -> None:
    with pytest.raises(chip_intake_errors.NotThisChipError):
        line.take(a_chip("chip-2"), "B-2", signer=a_chip("chip-3"))
    assert list(line.directory.glob("intake-*")) == []


def test_the_same_again_is_told_as_taken(line: Line) -> None:
    chip = a_chip()
    line.take(chip, "B-1")
    with pytest.raises(chip_intake_errors.TakenAlreadyError) as told:
        line.take(chip, "B-1")
    assert told.value.line == 2


def test_a_chip_is_on_one_board_alone(line: Line) -> None:
    chip = a_chip()
    line.take(chip, "B-1")
    with pytest.raises(chip_intake_errors.ChipOfAnotherBoardError):
        line.take(chip, "B-2")


def test_a_new_certificate_makes_no_other_chip_of_a_key(line: Line) -> None:
    chip = a_chip("chip-1")
    line.take(chip, "B-1")
    with pytest.raises(chip_intake_errors.ChipOfAnotherBoardError):
        line.take(a_device(None, "renamed", key=chip.private_key), "B-2")


def test_a_board_has_one_chip_alone(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    with pytest.raises(chip_intake_errors.BoardOfAnotherChipError):
        line.take(a_chip("chip-2"), "B-1")


def test_what_is_in_a_sealed_bundle_is_remembered(line: Line) -> None:
    chip = a_chip()
    line.take(chip, "B-1")
    line.seal()
    line.take(a_chip("chip-2"), "B-2")
    with pytest.raises(chip_intake_errors.ChipOfAnotherBoardError) as told:
        line.take(chip, "B-3")
    assert (told.value.bundle.name, told.value.line) == ("intake-0001.jsonl", 2)


def test_a_name_with_a_quotation_mark_is_refused(line: Line) -> None:
    with line.station() as station, pytest.raises(chip_intake_errors.NameUnusableError):
        station.ask(a_wish(a_chip(), 'B"1'))


def test_a_sealed_bundle_stays_and_the_next_chip_begins_another(line: Line) -> None:
    line.sealed(1, "first")
    first = (line.directory / "intake-0001.jsonl").read_bytes()
    line.sealed(1, "second")
    assert (line.directory / "intake-0001.jsonl").read_bytes() == first
    assert verified([*first.splitlines(), *line.lines], line.trust) == ["FIRST-0", "SECOND-0"]


def test_bundles_are_counted_and_copies_are_not_among_them(line: Line) -> None:
    line.sealed(1, "first")
    first = line.directory / "intake-0001.jsonl"
    first.rename(line.directory / "intake-9999.jsonl")
    (line.directory / "intake-9999 (copy).jsonl").write_bytes(b"whatever")
    assert line.sealed(1, "second").name == "intake-10000.jsonl"
    assert line.sealed(1, "third").name == "intake-10001.jsonl"


def test_sealing_twice_is_sealing_once(line: Line) -> None:
    line.take(a_chip())
    assert line.seal() == line.seal()


def test_there_is_nothing_to_seal_where_nothing_was_taken_in(line: Line) -> None:
    with (
        pytest.raises(chip_intake_errors.NothingTakenError),
        open_station(line.directory, clock=line.clock, entropy=line.entropy, may_begin=False),
    ):
        raise AssertionError("it was opened")
    assert not line.directory.exists()


def test_two_do_not_write_at_a_time(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.manifests.bundle.station._PATIENCE", 1)
    with line.station(), pytest.raises(chip_intake_errors.StationBusyError), line.station():
        raise AssertionError("both have it")


def test_what_nobody_would_read_is_not_written(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    before, large = line.bundle.read_bytes(), (x509.DNSName("a" * 60_000),)
    with pytest.raises(CertificateTooLargeError):
        line.take(a_chip("chip-2", profile=certificate_profiles.SERVER, san=large), "B-2")
    with line.station() as station, pytest.raises(ChainTooLongError):
        station.ask(ChipIntake("B-3", "ann", (a_chip("chip-3").certificate,) * 9))
    assert line.bundle.read_bytes() == before


# ---- power


def test_whatever_is_left_of_the_last_line_is_taken_away_and_the_chip_taken_in_again(line: Line) -> None:
    chip, last = a_chip("chip-1"), a_chip("chip-2")
    line.take(chip, "B-1")
    kept = len(line.bundle.read_bytes())
    line.take(last, "B-2")
    whole = line.bundle.read_bytes()
    for left in range(kept + 1, len(whole), 97):
        line.bundle.write_bytes(whole[:left])
        with line.station() as station:
            assert station.torn is not None
            assert station.torn.read_bytes() == whole[kept:left]
            take(station, last, "B-2")
        assert verified(line.lines, line.trust) == ["B-1", "B-2", "manifest.not_whole"]


def test_a_block_that_never_reached_the_disk_is_no_line(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    kept = line.bundle.read_bytes()
    line.bundle.write_bytes(kept + bytes(700) + b'"}\n')
    with line.station() as station:
        assert station.torn == line.bundle.with_name("intake-0001.jsonl.torn")
    assert line.bundle.read_bytes() == kept


@pytest.mark.parametrize("ending", [b"", b"\r", b" ", b"\t \r"])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_last_line_that_lost_only_its_end_is_kept(line: Line, ending: bytes, *, is_sealed: bool) -> None:
    chip = a_chip("chip-1")
    line.take(chip, "B-1")
    if is_sealed:
        line.seal()
    whole = line.bundle.read_bytes()
    line.bundle.write_bytes(whole[:-1] + ending)
    with line.station() as station:
        assert station.torn is None
        with pytest.raises(chip_intake_errors.ChipOfAnotherBoardError):
            station.ask(a_wish(chip, "B-9"))
        assert line.bundle.read_bytes() == whole
        take(station, a_chip("chip-2"), "B-2")


def test_what_dos_ends_a_text_with_is_no_lost_line(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    line.bundle.write_bytes(line.bundle.read_bytes() + b"\x1a")
    with line.station() as station:
        assert station.torn is None
        take(station, a_chip("chip-2"), "B-2")
    assert verified(line.lines, line.trust) == ["B-1", "B-2", "manifest.not_whole"]


def test_a_bundle_whose_first_line_was_lost_is_begun_again(line: Line) -> None:
    line.take(a_chip())
    line.bundle.write_bytes(line.lines[0][:100])
    line.take(a_chip("chip-2"), "B-1")
    assert verified(line.lines, line.trust) == ["B-1", "manifest.not_whole"]


def test_a_station_without_its_certificate_makes_it_while_nothing_was_taken_in(line: Line) -> None:
    line.directory.mkdir()
    with line.station():
        pass
    (line.directory / "station.pem").unlink()
    line.take(a_chip())
    assert verified(line.lines, line.trust)[0] == "B-1"


@pytest.mark.parametrize("file", ["station.key", "station.pem"])
def test_a_station_that_lost_a_file_makes_no_other_in_silence(line: Line, file: str) -> None:
    line.take(a_chip())
    (line.directory / file).unlink()
    with pytest.raises(chip_intake_errors.StationUnusableError):
        line.take(a_chip("chip-2"), "B-2")


def test_a_key_of_another_certificate_does_not_sign(line: Line) -> None:
    line.take(a_chip())
    (line.directory / "station.pem").write_text(a_device(None, "other").certificate.pem())
    with pytest.raises(chip_intake_errors.StationUnusableError):
        line.take(a_chip("chip-2"), "B-2")


def spoilt(lines: list[bytes]) -> dict[str, list[bytes]]:
    one, two, three = lines
    return {
        "a line changed": [one, two.replace(b"B-1", b"B-7"), three],
        "a line taken out": [one, three],
        "the last line changed": [one, two, three.replace(b"B-2", b"B-7")],
        "lines of another": [two, three],
        "no JSON": [one, b"{", three],
        "lines that end by CR": [b"\r".join(lines)],
        "lines that end by CR and CR": [b"\r".join([*lines, b""])],
        "UTF-16": [b"\n".join([*lines, b""]).decode().encode("utf-16")],
        "UTF-16 that begins with its higher bytes": [b"\n".join([*lines, b""]).decode().encode("utf-16-be")],
        "the last line changed and without its end": [one, two, three.replace(b"B-2", b"B-7")],
    }


_WITHOUT_END = ("by CR", "UTF-16", "without its end")


@pytest.mark.parametrize("how", spoilt([b"", b"", b""]))
def test_anything_else_ends_the_work_and_loses_nothing(line: Line, how: str) -> None:
    line.take(a_chip("chip-1"), "B-1")
    line.take(a_chip("chip-2"), "B-2")
    left = b"\n".join(spoilt(line.lines)[how]) + (b"" if any(part in how for part in _WITHOUT_END) else b"\n")
    line.bundle.write_bytes(left)
    with pytest.raises(chip_intake_errors.BundleDamagedError):
        line.take(a_chip("chip-3"), "B-3")
    assert line.bundle.read_bytes() == left


def test_a_bundle_in_the_middle_without_its_seal_ends_the_work(line: Line) -> None:
    line.sealed(1, "first")
    line.sealed(1, "second")
    first = line.directory / "intake-0001.jsonl"
    first.write_bytes(b"".join(one + b"\n" for one in first.read_bytes().splitlines()[:-1]))
    with pytest.raises(chip_intake_errors.BundleDamagedError):
        line.take(a_chip("chip-3"), "B-3")


def test_a_full_disk_leaves_the_bundle_as_it_was(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.take(a_chip("chip-1"), "B-1")
    before = line.bundle.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with line.station() as station:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            take(station, a_chip("chip-2"), "B-2")
    assert line.bundle.read_bytes() == before


def test_a_refusal_of_a_chip_says_what_was_written_then(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    with pytest.raises(BirthmarkError) as told:
        line.take(a_chip("chip-2"), "B-1")
    assert f"`sed -n 2p {line.bundle}`" in told.value.explain_fix()


FORMS = {
    "CR": lambda raw: raw.replace(b"\n", b"\r"),
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "UTF-16 with CRLF": lambda raw: raw.replace(b"\n", b"\r\n").decode().encode("utf-16"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_sealed", [False, True])
def test_the_fix_of_a_bundle_in_another_form_writes_it_back(line: Line, form: str, *, is_sealed: bool) -> None:
    chip = a_chip()
    line.take(chip, "B-1")
    if is_sealed:
        line.seal()
    whole = line.bundle.read_bytes()
    line.bundle.write_bytes(FORMS[form](whole))
    with pytest.raises(chip_intake_errors.BundleDamagedError) as told, line.station():
        raise AssertionError("it was opened")
    subprocess.run(["sh", "-c", told.value.explain_fix().split("`")[1]], check=True)
    assert line.bundle.read_bytes() == whole
    with line.station() as station, pytest.raises(chip_intake_errors.ChipOfAnotherBoardError):
        station.ask(a_wish(chip, "B-9"))


def test_empty_lines_that_an_editor_added_say_nothing(line: Line) -> None:
    line.take(a_chip("chip-1"), "B-1")
    line.bundle.write_bytes(line.bundle.read_bytes().replace(b"\n", b"\r\n\r\n") + b"\n")
    line.take(a_chip("chip-2"), "B-2")
    assert verified(line.lines, line.trust) == ["B-1", "B-2", "manifest.not_whole"]
