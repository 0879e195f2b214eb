"""What a journal's runs wrote is taken back: all of it, also what a kill left without an outcome, and nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from birthmark.fleet.bulk_enrollment import enroll_all, undo_all
from birthmark.fleet.enrollment_rollback_journal import COMPLETE, TAKEN_BACK, Journal, JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentOutcome, EnrollmentRequest, Note, TargetOutcome, unnoted
from birthmark.fleet.errors import TargetRefusedError
from support.agent.memory_target import MemoryTarget
from support.pki.pki_builders import a_device

WISHES = [EnrollmentRequest(name, a_device(common_name=name).certificate) for name in ("a", "b", "c")]


def enroll(target: MemoryTarget, path: Path) -> None:
    with Journal(path, target.identity) as kept:
        enroll_all(target, WISHES, kept, lambda _outcome: None, update=False, dry_run=False)


def take_back(
    target: MemoryTarget, path: Path, *, dry_run: bool = False, ending: str = TAKEN_BACK
) -> dict[str, TargetOutcome]:
    told: list[JournalOutcome] = []
    with Journal(path, target.identity) as kept:
        kept.ending = None if dry_run else ending
        undo_all(target, kept, told.append, dry_run=dry_run)
    return {outcome.device_id: outcome.done for outcome in told}


def test_what_a_run_created_is_gone_and_what_was_there_before_stays(tmp_path: Path) -> None:
    target = MemoryTarget(max_batch_size=3)
    target.on_record["a"] = WISHES[0].certificate.thumbprint.hex()
    enroll(target, tmp_path / "journal")
    assert take_back(target, tmp_path / "journal") == {"c": TargetOutcome.TAKEN_BACK, "b": TargetOutcome.TAKEN_BACK}
    assert list(target.on_record) == ["a"]


def test_several_runs_of_one_journal_are_taken_back_together(tmp_path: Path) -> None:
    target = MemoryTarget()
    enroll(target, tmp_path / "journal")
    target.remove("b", is_group=False)
    enroll(target, tmp_path / "journal")
    assert set(take_back(target, tmp_path / "journal")) == {"a", "b", "c"}
    assert target.on_record == {}


def test_what_changed_since_is_left_and_told(tmp_path: Path) -> None:
    target = MemoryTarget()
    enroll(target, tmp_path / "journal")
    target.on_record["b"] = "another"
    assert take_back(target, tmp_path / "journal")["b"] is TargetOutcome.REFUSED
    assert target.on_record == {"b": "another"}


def test_what_a_killed_run_had_begun_is_taken_back_too(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    lines = path.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if json.loads(line).get("outcome") == "created")
    path.write_text("\n".join(lines[:last]) + "\n" + '{"devi')
    assert len(take_back(target, path)) == 3
    assert target.on_record == {}


@pytest.mark.parametrize(
    "line",
    [
        '{"begun": ["a"], "way_back": {}}',
        '{"begun": "a", "way_back": "b"}',
        '{"outcome": {}, "device": []}',
        '{"begun": null, "way_back": {}}',
    ],
)
def test_a_line_that_no_run_wrote_leads_nowhere(tmp_path: Path, line: str) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    path.write_text(path.read_text() + line + "\n")
    assert set(take_back(target, path).values()) == {TargetOutcome.TAKEN_BACK}
    assert target.on_record == {}


def test_what_a_killed_run_made_and_the_next_found_unchanged_is_taken_back(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "outcome" not in line and "end" not in line) + "\n")
    enroll(target, path)
    take_back(target, path)
    assert target.on_record == {}


def test_what_somebody_else_made_while_a_run_began_is_theirs(tmp_path: Path) -> None:
    class Late(MemoryTarget):
        def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note = unnoted) -> Sequence[bool]:
            for wish in wishes:
                note(wish.device_id, {"thumbprint": wish.certificate.thumbprint.hex()})
            self.on_record |= {wish.device_id: wish.certificate.thumbprint.hex() for wish in wishes}
            for wish in wishes:
                note(wish.device_id, {})
            return [False] * len(wishes)

    target = Late(max_batch_size=3)
    enroll(target, tmp_path / "journal")
    assert take_back(target, tmp_path / "journal") == {}
    assert len(target.on_record) == 3


@pytest.mark.parametrize("heard", [TargetOutcome.REFUSED, TargetOutcome.UNCHANGED])
def test_what_was_written_and_told_otherwise_as_its_answer_was_lost_is_taken_back(
    tmp_path: Path, heard: TargetOutcome
) -> None:
    class Lossy(MemoryTarget):
        def enroll(
            self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
        ) -> EnrollmentOutcome:
            super().enroll(wish, note, update=update, dry_run=dry_run)
            if heard is TargetOutcome.REFUSED:
                raise TargetRefusedError(target="memory", reason="it is there")
            return EnrollmentOutcome(heard)

    target = Lossy()
    enroll(target, tmp_path / "journal")
    assert set(take_back(target, tmp_path / "journal").values()) == {TargetOutcome.TAKEN_BACK}
    assert target.on_record == {}


def test_a_rehearsal_takes_nothing_back_and_leaves_the_journal(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    before = path.read_bytes()
    assert set(take_back(target, path, dry_run=True).values()) == {TargetOutcome.WOULD_TAKE_BACK}
    assert (len(target.on_record), path.read_bytes()) == (3, before)


def test_a_rehearsal_does_not_note_what_is_away_as_gone(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    before = path.read_bytes()
    gone = target.on_record.pop("b")
    assert take_back(target, path, dry_run=True)["b"] is TargetOutcome.GONE
    target.on_record["b"] = gone
    assert path.read_bytes() == before
    assert take_back(target, path)["b"] is TargetOutcome.TAKEN_BACK


def test_what_was_taken_back_and_made_anew_by_others_is_theirs(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    take_back(target, path)
    enroll(target, tmp_path / "other")
    assert take_back(target, path) == {}
    assert len(target.on_record) == 3


def test_one_that_did_not_come_to_its_end_goes_on(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    target.on_record["b"] = "another"
    take_back(target, path, ending=COMPLETE)
    enroll(target, tmp_path / "other")
    target.on_record["b"] = WISHES[1].certificate.thumbprint.hex()
    assert take_back(target, path) == {"b": TargetOutcome.TAKEN_BACK}
    assert set(target.on_record) == {"a", "c"}, "which others made anew"


def test_a_run_after_one_that_did_not_come_to_its_end_is_taken_back_whole(tmp_path: Path) -> None:
    target, path = MemoryTarget(), tmp_path / "journal"
    enroll(target, path)
    target.on_record["b"] = "another"
    take_back(target, path, ending=COMPLETE)
    target.remove("b", is_group=False)
    enroll(target, path)
    assert set(take_back(target, path)) == {"a", "b", "c"}
    assert target.on_record == {}


def test_what_came_before_a_change_that_is_left_is_left_too(tmp_path: Path) -> None:
    """The latest is taken back first; so that it is known of each whether it was."""
    target, path = MemoryTarget(), tmp_path / "journal"
    first, second = (a_device(common_name="a").certificate for _ in range(2))
    with Journal(path, target.identity) as kept:
        for certificate in (first, second):
            kept.begin("a", {"thumbprint": certificate.thumbprint.hex()})
            kept.add(JournalOutcome("a", certificate.thumbprint.hex(), TargetOutcome.CREATED))
    target.on_record["a"] = first.thumbprint.hex()
    assert take_back(target, path, ending=COMPLETE) == {"a": TargetOutcome.REFUSED}
    target.on_record["a"] = second.thumbprint.hex()
    assert take_back(target, path, ending=COMPLETE) == {"a": TargetOutcome.GONE}
    assert take_back(target, path) == {}
