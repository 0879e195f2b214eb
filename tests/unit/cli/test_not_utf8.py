"""Names that are no UTF-8, as from a Windows archive: refused by name, or escaped, and nothing stops half-way."""

import subprocess
import sys
from pathlib import Path

import pytest

from birthmark.auth.connection_strings import ConnectionStringError, parse_connection_string
from birthmark.errors import shell_word
from birthmark.fleet.device_outcome_report import FleetRun, Report
from birthmark.fleet.enrollment_rollback_journal import JournalOutcome
from birthmark.fleet.enrollment_target import TargetOutcome
from birthmark.untrusted_json_and_text import decode_json
from support.fakes import NOON

NAME = b"K\xf6ln".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("words", [["hub", "show"], ["device", "enroll", "--cert"], ["serve", "--data"]])
def test_an_argument_is_refused_by_name(words: list[str]) -> None:
    program = [str(Path(sys.executable).with_name("birthmark")), *words, NAME]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The argument K\\xf6ln is not UTF-8" in done.stderr


def test_of_a_password_that_is_not_utf_8_no_encoding_is_guessed(tmp_path: Path) -> None:
    (file := tmp_path / "password").write_bytes("Geräte genug".encode("cp1252"))
    file.chmod(0o600)
    program = [str(Path(sys.executable).with_name("birthmark")), "user", "password", "--current-file", str(file)]
    done = subprocess.run([*program, "--password-file", "x"], capture_output=True, text=True, check=False)
    assert "Save it as UTF-8 in the editor that created it." in done.stderr
    assert "Ger" not in done.stderr


def test_a_word_of_a_command_is_typed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / f"a {NAME}'\\").write_text("found")
    command = f"cat {shell_word(f'a {NAME}{chr(39)}{chr(92)}')}"
    assert subprocess.check_output(["bash", "-c", command], cwd=tmp_path, text=True) == "found"


@pytest.mark.parametrize("form", ["csv", "html", "json"])
def test_a_report_is_whole(tmp_path: Path, form: str) -> None:
    run = FleetRun("target", NOON, dry_run=False, command="x", title="Enroll")
    with Report(tmp_path / f"r.{form}", run, lambda: NOON) as report:
        for device in ("a", NAME, "b"):
            report.add(JournalOutcome(device, None, TargetOutcome.CREATED))
    assert "\\udcf6" in (tmp_path / f"r.{form}").read_text()


def test_json_in_utf_16_is_named() -> None:
    with pytest.raises(Exception, match="it is UTF-16: send UTF-8"):
        decode_json('{"a": 1}'.encode("utf-16"))


@pytest.mark.parametrize("write", ['"{}"', "\u201c{}\u201d", "set X={}", "{}\u00a0\r\n"])
def test_a_connection_string_is_read_as_people_keep_it(write: str) -> None:
    known = "HostName=h.example;SharedAccessKeyName=owner;SharedAccessKey=a2V5"
    assert parse_connection_string(write.format(known)) == parse_connection_string(known)


def test_of_two_connection_strings_none_is_put_together() -> None:
    one, other = (f"HostName={host};SharedAccessKeyName={host};SharedAccessKey=a2V5" for host in "ab")
    with pytest.raises(ConnectionStringError, match="HostName") as refused:
        parse_connection_string(f"{one}\r\n{other}")
    assert "several connection strings" in refused.value.explain_cause()
    for beside in (f"{one};GatewayHostName=edge", f"GatewayHostName=edge;{one}"):
        assert parse_connection_string(beside) == parse_connection_string(one)
