"""Many at once: each outcome is told, and what stops everything stops it."""

from pathlib import Path

import pytest

from birthmark.errors import BirthmarkError, ConflictError
from birthmark.fleet.bulk_enrollment import enroll_all
from birthmark.fleet.enrollment_rollback_journal import KEPT, Journal, JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentOutcome, EnrollmentRequest, Note, TargetOutcome, unnoted
from birthmark.fleet.errors import CredentialsRefusedError, DifferentRecordError, TargetUnreachableError
from support.agent.memory_target import MemoryTarget
from support.pki.pki_builders import a_device

CERTIFICATE = a_device().certificate
WISHES = [EnrollmentRequest(f"device-{number}", CERTIFICATE) for number in range(40)]


class Failing(MemoryTarget):
    """A target that refuses one device, and counts what it was asked."""

    def __init__(self, name: str, error: BirthmarkError) -> None:
        super().__init__()
        self._name, self._error = name, error
        self.asked: list[str] = []

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        del update, dry_run
        self.asked.append(wish.device_id)
        if wish.device_id == self._name:
            raise self._error
        return EnrollmentOutcome(TargetOutcome.CREATED)


def run(target: Failing, told: list[JournalOutcome]) -> None:
    with Journal(None, "") as journal:
        enroll_all(target, WISHES, journal, told.append, update=False, dry_run=False, again="again", workers=2)


def test_a_refused_device_is_one_outcome_and_the_others_are_enrolled() -> None:
    error = DifferentRecordError(device="device-3", target="failing", present="x", wanted="y")
    told: list[JournalOutcome] = []
    run(Failing("device-3", error), told)
    assert len(told) == len(WISHES)
    (refused,) = [outcome for outcome in told if outcome.done is not TargetOutcome.CREATED]
    assert (refused.device_id, refused.done) == ("device-3", TargetOutcome.REFUSED)
    row = refused.as_row()
    assert (row["code"], row["message"]) == ("fleet.different_record", "device-3 is enrolled with different settings")
    assert row["fix"] == "To update the enrollment: `again --update`"


@pytest.mark.parametrize(
    "error",
    [
        TargetUnreachableError(target="failing", reason="no route"),
        CredentialsRefusedError(target="failing", reason="expired"),
    ],
)
def test_no_answer_and_refused_credentials_end_the_run(error: BirthmarkError) -> None:
    target = Failing("device-0", error)
    told: list[JournalOutcome] = []
    with pytest.raises(type(error)):
        run(target, told)
    assert len(target.asked) < len(WISHES)
    assert {outcome.device_id for outcome in told} <= set(target.asked)


def test_without_a_path_a_journal_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Failing("nobody", ConflictError()), [])
    assert not list(tmp_path.iterdir())


def test_a_rehearsals_outcomes_are_not_journaled(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, "here") as journal:
        for done in TargetOutcome:
            journal.add(JournalOutcome("device", None, done))
    assert path.read_text().count('"outcome"') == len(KEPT)
