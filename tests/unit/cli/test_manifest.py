"""What `birthmark manifest verify` says of entries of which only a part can be checked."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from birthmark.cli.app import app
from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry
from support.chips.intake_world import Line
from support.fakes import NOON
from support.pki.pki_builders import a_ca

LOG = a_ca("Manifest Signer")
SIGNER = ManifestKey(LOG.certificate, LOG.private_key)  # type: ignore[arg-type]  # the builder makes P-256


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = render_entry(ManifestChip("0123aabbccddeeff01", [], None), SIGNER, NOON)
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    (tmp_path / "signer.pem").write_text(LOG.certificate.pem())
    return ["verify", str(tmp_path / "manifest.json"), "--signer", str(tmp_path / "signer.pem")]


def test_an_entry_without_keys_is_not_counted_as_verified(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["manifest", *arguments])
    assert done.exit_code == 7
    assert "0 entries verified, 0 refused" in done.stderr
    assert "For 1 more, only signature, signer and header were verified" in done.stderr


def test_its_row_says_what_was_not_checked(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["manifest", *arguments, "--json"])
    assert json.loads(done.stdout)["unchecked"] == "it lists no public keys"


def test_files_of_a_directory_that_are_not_looked_at_are_named(tmp_path: Path) -> None:
    (tmp_path / "root.txt").write_text(LOG.certificate.pem())
    (tmp_path / "list").mkdir()
    for number in range(7):
        (tmp_path / "list" / f"{number}.txt").touch()
    arguments = ["manifest", "verify", str(tmp_path / "list"), "--trust-root", str(tmp_path / "root.txt")]
    told = CliRunner().invoke(app, arguments).stderr
    assert "7 files not looked at: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more." in " ".join(told.split())
    row = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert row == {"left_out": 7, "files": [f"{number}.txt" for number in range(7)]}


def test_a_manifest_in_a_directory_or_zip_is_named_in_its_place(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "folder").mkdir()
    (tmp_path / "manifest.json").rename(folder / "manifest.json")
    subprocess.run(["python3", "-m", "zipfile", "-c", "packed.zip", "folder/"], cwd=tmp_path, check=True)
    for given in (folder, tmp_path / "packed.zip"):
        typed = ["manifest", "verify", str(given), *arguments[2:], "--trust-root", arguments[-1]]
        monkeypatch.setattr("sys.argv", ["birthmark", *typed])
        done = CliRunner().invoke(app, typed)
        assert (done.exit_code, "manifest.json in" in done.stderr) == (2, True)
        command = " ".join(done.stderr.split()).split("Fix: ")[1].split("`")[1]
        assert command.split("birthmark ")[1].split()[2].endswith("folder/manifest.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "missing.json"),
        ("verify", "there.json", "--signer", "missing.pem"),
        ("verify", "there.json", "--trust-root", "missing.pem"),
        ("verify", ".", "--trust-root", "missing.pem"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_not_there_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("[]")
    done = CliRunner().invoke(app, ["manifest", *arguments])
    assert done.exit_code == 3
    assert "cli.file_missing" in done.stderr


@pytest.mark.parametrize("command", ["manifest verify {} --station {}", "device enroll-list {} --station {} --dry-run"])
def test_a_bundle_whose_lines_end_with_cr_is_told_with_the_command_that_converts_it(
    tmp_path: Path, command: str
) -> None:
    line = Line(tmp_path / "north")
    whole = line.sealed(2).read_bytes()
    (changed := tmp_path / "of a mac.jsonl").write_bytes(whole.replace(b"\n", b"\r"))
    typed = shlex.split(command.format(shlex.quote(str(changed)), line.directory / "station.pem"))
    done = CliRunner().invoke(app, typed)
    assert "Code: cli.file_encoding" in done.stderr, done.stderr
    subprocess.run(["sh", "-c", done.stderr.split("`")[1]], check=True)
    assert (tmp_path / "of a mac.lines.jsonl").read_bytes() == whole
