"""A journal belongs to one target, tells what a run did, and never stands in for the target's word."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from birthmark.fleet.bulk_enrollment import enroll_all
from birthmark.fleet.enrollment_rollback_journal import (
    Journal,
    JournalChangedError,
    JournalInUseError,
    JournalOutcome,
    NoJournalError,
    NoJournalOfRunError,
    OtherTargetsJournalError,
    add_path_to_errors,
)
from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome
from support.agent.memory_target import MemoryTarget
from support.pki.pki_builders import a_device

HERE, THERE = "Azure DPS a scope 1", "Azure DPS a scope 2"


WISHES = [EnrollmentRequest(name, a_device(common_name=name).certificate) for name in ("a", "b", "c")]


def enroll(target: MemoryTarget, journal: Path) -> dict[str, TargetOutcome]:
    told: list[JournalOutcome] = []
    with Journal(journal, target.identity) as kept:
        enroll_all(target, WISHES, kept, told.append, update=False, dry_run=False)
    return {outcome.device_id: outcome.done for outcome in told}


def test_what_was_removed_at_the_target_is_made_again_whatever_the_journal_says(tmp_path: Path) -> None:
    target = MemoryTarget(HERE)
    enroll(target, tmp_path / "journal")
    target.remove("b", is_group=False)
    assert enroll(target, tmp_path / "journal") == {
        "a": TargetOutcome.UNCHANGED,
        "b": TargetOutcome.CREATED,
        "c": TargetOutcome.UNCHANGED,
    }


def test_the_way_back_is_on_the_disk_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "journal", [0]
    sync = os.fdatasync

    def watched(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        sync(descriptor)
        synced.append(size)

    monkeypatch.setattr(os, "fdatasync", watched)
    with Journal(path, HERE) as journal:

        def begin(number: int) -> None:
            journal.begin(f"device-{number}", {})
            kept = path.read_bytes()[: synced[-1]]
            assert f'"begun": "device-{number}"'.encode() in kept

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(200)))
    assert synced[-1] == path.stat().st_size
    assert len(synced) <= 202, "one for each row at most; those that come together share one"


def test_a_journal_is_refused_for_another_target_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    enroll(MemoryTarget(HERE), path)
    before = path.read_bytes()
    with pytest.raises(OtherTargetsJournalError), Journal(path, THERE):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["-----BEGIN CERTIFICATE-----\n", "[]", '{"device": "a", "outcome": "created"}\n'])
def test_a_file_that_is_no_journal_is_never_written_to(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(NoJournalError), Journal(path, HERE):
        pass
    assert path.read_text() == content


def test_the_journal_tells_how_far_a_run_came_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, HERE)
    journal.__enter__()
    journal.add(JournalOutcome("a", "00", TargetOutcome.CREATED))
    journal.__exit__(KeyboardInterrupt)
    with path.open("a") as file:
        file.write('{"device": "b", "outc')
    with Journal(path, HERE) as journal:
        assert journal.before == 1
        journal.add(JournalOutcome("b", "00", TargetOutcome.CREATED))
    with Journal(path, HERE) as journal:
        assert journal.before == 0
    rows = [json.loads(line) for line in path.read_text().splitlines() if line != '{"device": "b", "outc']
    said = [row.get("device") or row.get("end") or row.get("run") for row in rows]
    assert said == [None, "a", "another", "b", "complete", "another", "complete"]


def test_what_was_under_way_when_the_run_is_stopped_is_told_and_journaled(tmp_path: Path) -> None:
    target = MemoryTarget(HERE)
    told: list[Any] = []

    def wishes() -> Iterator[EnrollmentRequest]:
        yield from WISHES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "journal", HERE) as journal:
        enroll_all(target, wishes(), journal, told.append, update=False, dry_run=False, workers=1)
    assert {outcome.device_id for outcome in told} == set(target.on_record)
    assert (tmp_path / "journal").read_text().count('"outcome"') == len(told)


def test_a_second_run_in_one_journal_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, "here"):
        with pytest.raises(JournalInUseError), Journal(path, "here"):
            pass
        with Journal(tmp_path / "second", "here"):
            pass
    with Journal(path, "here"):
        pass


def test_a_full_disk_names_the_journal(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match="No space") as refused,
        add_path_to_errors(tmp_path / "journal"),
        (tmp_path / "journal").open("w") as file,
    ):
        file.write("x")
    assert refused.value.filename == str(tmp_path / "journal")


EDITED: dict[str, Callable[[str], bytes]] = {
    "UTF-16 of Notepad": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-be"),
    "line ends of old": lambda text: text.replace("\n", "\r").encode(),
    "an empty line first": lambda text: f"\r\n{text}".encode(),
}


@pytest.mark.parametrize("edit", EDITED.values(), ids=list(EDITED))
def test_a_journal_that_an_editor_saved_comes_back_by_the_command_that_is_told(
    tmp_path: Path, edit: Callable[[str], bytes]
) -> None:
    path = tmp_path / "a.journal"
    with Journal(path, HERE) as journal:
        journal.begin("pump-1", {"key": "old"})
        journal.begin("Pumpe-ü", {"key": "alt"})
    as_written = list(journal.list_undoable_writes())
    path.write_bytes(edit(path.read_text()))
    with pytest.raises(JournalChangedError) as refused, Journal(path, HERE, again="birthmark undo --undo"):
        pass
    subprocess.run(["sh", "-c", str(refused.value.facts["command"])], check=True)
    with Journal(tmp_path / "a.utf8.journal", HERE) as journal:
        assert list(journal.list_undoable_writes()) == as_written


def test_to_take_back_what_is_no_journal_another_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_text('{“format”: "birthmark-enroll-journal/1"}\n')
    with pytest.raises(NoJournalOfRunError) as refused, Journal(path, HERE, again="birthmark x --undo"):
        pass
    assert f"`ls -l {tmp_path}`" in refused.value.explain_fix()


JOINED: dict[str, Callable[[bytes], bytes]] = {
    "UTF-16 behind it, by >> of PowerShell": lambda text: text + text.decode().encode("utf-16-le"),
    "curly quotes": lambda text: b"".join(
        line if number == 0 else line.replace(b'"', "”".encode()) for number, line in enumerate(text.splitlines(True))
    ),
    "curly quotes in the last line": lambda text: (
        b"".join(text.splitlines(True)[:-1]) + text.splitlines(True)[-1].replace(b'"', "”".encode())
    ),
}


@pytest.mark.parametrize("change", JOINED.values(), ids=list(JOINED))
def test_a_line_that_no_run_wrote_so_is_refused_and_not_passed_over(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.journal"
    with Journal(path, HERE) as journal:
        journal.begin("pump-1", {"key": "old"})
    path.write_bytes(changed := change(path.read_bytes()))
    with pytest.raises(JournalChangedError) as refused, Journal(path, HERE, again="birthmark x --undo"):
        pass
    assert "line" in refused.value.explain_cause()
    assert path.read_bytes() == changed


@pytest.mark.parametrize("end", [b"", b"\x1a", b"\0\0", b"\r\n\r\n", b'{"begun": "b", "way'])
def test_who_only_looks_changes_nothing(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "a.journal"
    with Journal(path, HERE) as journal:
        journal.begin("pump-1", {"key": "old"})
    path.write_bytes(as_it_was := path.read_bytes() + end)
    with Journal(path, HERE) as journal:
        journal.ending = None
        assert [device for device, _ in journal.list_undoable_writes()] == ["pump-1"]
    assert path.read_bytes() == as_it_was


def test_an_empty_file_is_the_journal_of_no_run(tmp_path: Path) -> None:
    (path := tmp_path / "a.journal").touch()
    with pytest.raises(NoJournalOfRunError), Journal(path, HERE, again="birthmark x --undo"):
        pass
    assert path.read_bytes() == b""
