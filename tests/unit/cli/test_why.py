"""`birthmark why` with what somebody pasted."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from birthmark.cli.app import app
from birthmark.cli.output.command_refusal_journal import log_refusal
from birthmark.device_transports.errors import LinkUnreachableError
from birthmark.dps.service.enrollments import EnrollmentNotFoundError
from birthmark.keys.errors import PinFileError


def not_found(name: str) -> EnrollmentNotFoundError:
    error = EnrollmentNotFoundError(enrollment=name, kind="individual", scope="0ne0")
    error.add_facts(registration_id=name)
    return error


NO_KEY = (
    "[ERROR] [2026-01-01T00:00:00Z] [00007f39] [pkcs11] - id=0x2b8e session=1: Failed to find private key on PKCS#11 "
    "token which matches search criteria"
)
PASTED = """\
Traceback (most recent call last):
  SomeError: (NotFound) Enrollment
      pump-7 not found. See the service's documentation.
"""


def test_pasted_text_with_a_recorded_message_finds_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("pump-6", "pump-7"):
        log_refusal(not_found(name))
    found = CliRunner().invoke(app, ["why", PASTED, "--data", str(tmp_path / "none")])
    assert found.exit_code == 0, found.stderr
    assert "dps.enrollment_not_found" in found.stdout
    assert "registration_id pump-7" in found.stdout
    assert "pump-6" not in found.stdout


def test_other_text_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    log_refusal(not_found("pump-6"))
    found = CliRunner().invoke(app, ["why", PASTED, "--data", str(tmp_path / "none")])
    assert found.exit_code != 0
    assert "pump-6" not in found.stdout


def test_refusals_of_a_code_are_found_in_the_journal_of_this_machine_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("BIRTHMARK_DATA", str(tmp_path / "none"))
    log_refusal(PinFileError(path="pin", detail="is open to others (mode 0644)"))
    for number in range(50):
        log_refusal(not_found(f"pump-{number}"))
    for more in ([], ["--data", str(tmp_path / "none")]):
        found = CliRunner().invoke(app, ["why", "--code", "keys.pin_file", *more])
        assert found.exit_code == 0, found.stderr
        assert "The PIN or password file pin is open to others" in " ".join(found.stdout.split())


def test_an_error_about_this_shells_server_is_found_after_the_server_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("BIRTHMARK_DATA", str(tmp_path / "stopped"))
    monkeypatch.setenv("PROVISIONING_HOST", "127.0.0.9")
    monkeypatch.setenv("PROVISIONING_IDSCOPE", "0ne0OURS")
    log_refusal(LinkUnreachableError(host="127.0.0.9", port=8883, reason="Connection refused"))
    found = CliRunner().invoke(app, ["why", "--code", "links.unreachable"])
    assert "127.0.0.9 port 8883 cannot be reached" in found.stdout


@pytest.mark.parametrize(
    ("text", "means", "fix"),
    [
        ("sss   :WARN :Communication channel is Plain.", "the key stays in the chip", "docs/howto/se050.md"),
        (NO_KEY, "private_key_label", "`birthmark chip ls`"),
    ],
    ids=["plain-channel", "awscrt"],
)
def test_what_articles_quote_is_explained_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, means: str, fix: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = CliRunner().invoke(app, ["why", text, "--data", str(tmp_path / "none"), "--json"])
    (row,) = map(json.loads, found.stdout.splitlines())
    assert row["may_be_ignored"] is False
    assert means in row["why"]
    assert fix in row["fix"]


@pytest.mark.parametrize("code", ["est.password_wrong", "dps.not_enrolled", "iothub.unknown_device"])
def test_a_code_in_general_has_words_in_the_place_of_facts(tmp_path: Path, code: str) -> None:
    found = CliRunner().invoke(app, ["why", code, "--data", str(tmp_path / "none")])
    assert found.exit_code == 0, found.stderr
    assert "in general" in found.stdout
    assert "{" not in found.stdout
