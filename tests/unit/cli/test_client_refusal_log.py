"""The journal of this machine's refusals: how long it grows, and what it never writes to."""

import os
from pathlib import Path

import pytest

from birthmark.cli.output.command_refusal_journal import MAX_BYTES, journal_path, log_refusal, noted
from birthmark.dps.service.enrollments import EnrollmentNotFoundError

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes to files of others")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def refused(name: str) -> None:
    error = EnrollmentNotFoundError(enrollment=name, kind="individual", scope="0ne0")
    error.add_facts(registration_id=name)
    log_refusal(error)


def test_a_full_journal_keeps_its_newer_half_and_the_new_row() -> None:
    refused("first")
    with journal_path().open("a") as file:
        file.write('{"old": true}\n' * (MAX_BYTES // 14))
    refused("last")
    assert journal_path().stat().st_size < MAX_BYTES * 3 // 4
    assert [row["facts"]["registration_id"] for row in noted(None, 10)] == ["last"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    journal_path().parent.mkdir(parents=True)
    (tmp_path / "other").write_text("kept")
    if kind == "link":
        journal_path().symlink_to(tmp_path / "other")
    else:
        os.mkfifo(journal_path())
    refused("pump-7")
    assert (tmp_path / "other").read_text() == "kept"


@is_root
@pytest.mark.parametrize("there", [".", "state", "state/birthmark"])
def test_root_writes_nothing_into_a_directory_of_another_user(tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    os.chown(tmp_path / there, 65534, 65534)
    refused("pump-7")
    assert not journal_path().exists()
