"""A device is retired only when it was seen at its new place, and moved by nobody who has not its record."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from birthmark.errors import BirthmarkError
from birthmark.fleet.aws_diff_and_rollback import progress_of as stand_at_aws
from birthmark.fleet.azure_hub_devices import progress_of as stand_at_hub
from birthmark.fleet.bulk_enrollment import undo_all
from birthmark.fleet.device_migration import MigrationStage, MigrationStep, Move, next_step
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage, Goal
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome
from birthmark.fleet.enrollment_target import (
    EnrollmentOutcome,
    EnrollmentRequest,
    Note,
    RetirementOutcome,
    TargetOutcome,
    unnoted,
)
from birthmark.fleet.errors import TargetRefusedError
from support.agent.memory_target import MemoryTarget
from support.fakes import NOON
from support.pki.pki_builders import a_device

WISH = EnrollmentRequest("gateway", a_device(common_name="gateway").certificate)


class Place(MemoryTarget):
    """A target where a device stands somehow, until it is enrolled or retired."""

    def __init__(self, standing: DeviceStage) -> None:
        super().__init__()
        self.standing = standing
        self.is_at_hand = True
        self.why_left = ""
        self.problem: BirthmarkError | None = None

    def get_progress(self, wish: EnrollmentRequest) -> DeviceProgress:
        if self.problem is not None:
            raise self.problem
        is_new = self.standing is DeviceStage.MISSING and wish.device_id in self.on_record
        return DeviceProgress(wish.device_id, DeviceStage.UNASSIGNED if is_new else self.standing)

    def retire(self, wish: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        if not self.is_at_hand:
            return RetirementOutcome(TargetOutcome.LEFT, self.why_left)
        if dry_run:
            return RetirementOutcome(TargetOutcome.WOULD_RETIRE)
        if self.standing is DeviceStage.DISABLED:
            return RetirementOutcome(TargetOutcome.UNCHANGED)
        self.standing = DeviceStage.DISABLED
        return RetirementOutcome(TargetOutcome.RETIRED)

    def reinstate(self, wish: EnrollmentRequest) -> None:
        assert wish.device_id in self.on_record
        self.standing = DeviceStage.ASSIGNED


@contextmanager
def moving(
    source: DeviceStage, destination: DeviceStage, *, dry_run: bool = False, update: bool = False
) -> Iterator[Move]:
    with Journal(None, "") as journal:
        yield Move(Place(source), Place(destination), journal, dry_run=dry_run, update=update)


@pytest.mark.parametrize("source", list(DeviceStage))
@pytest.mark.parametrize("destination", list(DeviceStage))
def test_nothing_is_retired_before_it_was_connected(source: DeviceStage, destination: DeviceStage) -> None:
    if next_step(source, destination) is MigrationStep.RETIRE:
        assert destination in {DeviceStage.CONNECTED, DeviceStage.AWAY}


def test_a_device_goes_from_record_to_connection_to_retirement() -> None:
    with moving(DeviceStage.CONNECTED, DeviceStage.MISSING) as move:
        source, destination = move.source, move.destination
        assert isinstance(source, Place)
        assert isinstance(destination, Place)
        assert [one.moved for one in move.run_pass([(WISH, WISH)])] == [MigrationStage.WAITING]
        assert [one.moved for one in move.run_pass([(WISH, WISH)])] == [MigrationStage.WAITING]
        destination.standing = DeviceStage.CONNECTED
        assert [one.moved for one in move.run_pass([(WISH, WISH)])] == [MigrationStage.MOVED]
        assert source.standing is DeviceStage.DISABLED
        assert [one.moved for one in move.run_pass([(WISH, WISH)])] == [MigrationStage.MOVED]


@pytest.mark.parametrize(
    ("source", "destination", "code"),
    [
        (DeviceStage.MISSING, DeviceStage.MISSING, "fleet.not_at_source"),
        (DeviceStage.OTHERWISE, DeviceStage.CONNECTED, "fleet.not_at_source"),
        (DeviceStage.CONNECTED, DeviceStage.OTHERWISE, "fleet.taken_at_destination"),
    ],
)
def test_another_device_s_record_proves_nothing(source: DeviceStage, destination: DeviceStage, code: str) -> None:
    with moving(source, destination) as move:
        (progress,) = move.run_pass([(WISH, WISH)])
        assert progress.refusal is not None
        assert (progress.moved, progress.refusal.code) == (MigrationStage.REFUSED, code)


def test_a_refused_move_says_in_its_row_what_to_do() -> None:
    with moving(DeviceStage.MISSING, DeviceStage.MISSING) as move:
        (progress,) = move.run_pass([(WISH, WISH)])
    row = progress.as_row()
    assert (row["device"], row["moved"], row["code"]) == ("gateway", "refused", "fleet.not_at_source")
    assert "gateway is not on record at memory" in row["cause"]
    assert "`birthmark device ls`" in row["fix"]


def test_a_device_that_is_waited_for_has_a_row_without_a_refusal() -> None:
    with moving(DeviceStage.CONNECTED, DeviceStage.ASSIGNED) as move:
        (progress,) = move.run_pass([(WISH, WISH)])
    assert progress.as_row() == {"device": "gateway", "moved": "waiting", "detail": "never seen"}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("source", "destination", "code"),
    [
        (DeviceStage.TAKEN_BACK, DeviceStage.MISSING, "fleet.not_at_source"),
        (DeviceStage.TAKEN_BACK, DeviceStage.DISABLED, "fleet.not_at_source"),
        (DeviceStage.TAKEN_BACK, DeviceStage.CONNECTED, "fleet.not_at_source"),
        (DeviceStage.CONNECTED, DeviceStage.TAKEN_BACK, "fleet.taken_at_destination"),
        (DeviceStage.DISABLED, DeviceStage.TAKEN_BACK, "fleet.taken_at_destination"),
    ],
)
def test_a_lost_device_is_let_in_by_no_move_nor_option(
    source: DeviceStage, destination: DeviceStage, code: str, *, dry_run: bool
) -> None:
    with moving(source, destination, dry_run=dry_run, update=True) as move:
        (progress,) = move.run_pass([(WISH, WISH)])
        assert progress.refusal is not None
        assert (progress.moved, progress.refusal.code) == (MigrationStage.REFUSED, code)
        said = "taken back" if source is DeviceStage.TAKEN_BACK else "status revoked"
        assert said in progress.detail
        assert isinstance(move.destination, Place)
        assert (move.destination.on_record, move.destination.standing) == ({}, destination)


@pytest.mark.parametrize(
    ("destination", "said"),
    [(DeviceStage.MISSING, MigrationStage.WOULD_ENROLL), (DeviceStage.AWAY, MigrationStage.WOULD_RETIRE)],
)
def test_a_rehearsal_says_the_next_step_alone(destination: DeviceStage, said: MigrationStage) -> None:
    with moving(DeviceStage.CONNECTED, destination, dry_run=True) as move:
        assert [one.moved for one in move.run_pass([(WISH, WISH)])] == [said]
        assert isinstance(move.destination, Place)
        assert move.destination.on_record == {}


def test_a_run_that_is_killed_while_it_retires_leaves_nothing_to_take_back_there(tmp_path: Path) -> None:
    source, destination = Place(DeviceStage.CONNECTED), Place(DeviceStage.MISSING)
    with Journal(tmp_path / "moving.journal", "there") as journal:
        list(Move(source, destination, journal, dry_run=False).run_pass([(WISH, WISH)]))
    destination.standing = DeviceStage.CONNECTED
    killed, retire = KeyboardInterrupt(), source.retire

    def retire_and_die(wish: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        retired = retire(wish, dry_run=dry_run)
        if retired.done is TargetOutcome.RETIRED:
            raise killed
        return retired

    source.retire = retire_and_die  # type: ignore[method-assign]  # a kill right after it
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "moving.journal", "there") as journal:
        list(Move(source, destination, journal, dry_run=False).run_pass([(WISH, WISH)]))
    told: list[JournalOutcome] = []
    with Journal(tmp_path / "moving.journal", "there") as journal:
        undo_all(destination, journal, told.append, dry_run=False)
    assert [one.done for one in told] == [TargetOutcome.REFUSED]
    assert WISH.device_id in destination.on_record


def test_who_cannot_be_retired_is_not_settled(tmp_path: Path) -> None:
    with Journal(tmp_path / "moving.journal", "there") as journal:
        source = Place(DeviceStage.ASSIGNED)
        source.is_at_hand = False
        list(Move(source, Place(DeviceStage.CONNECTED), journal, dry_run=False).run_pass([(WISH, WISH)]))
        assert not journal.moved


def test_who_cannot_be_retired_is_not_said_to_be_moved() -> None:
    with moving(DeviceStage.ASSIGNED, DeviceStage.CONNECTED) as move:
        assert isinstance(move.source, Place)
        move.source.is_at_hand = False
        (progress,) = move.run_pass([(WISH, WISH)])
        assert (progress.moved, progress.detail) == (MigrationStage.WAITING, "seen, and not retired: ")


def test_of_who_cannot_be_retired_it_is_said_why() -> None:
    with moving(DeviceStage.ASSIGNED, DeviceStage.CONNECTED) as move:
        assert isinstance(move.source, Place)
        move.source.is_at_hand, move.source.why_left = False, "others have it"
        (progress,) = move.run_pass([(WISH, WISH)])
        assert (progress.moved, progress.detail) == (MigrationStage.WAITING, "seen, and not retired: others have it")


def test_a_retirement_that_was_cut_off_is_gone_on_with() -> None:
    assert next_step(DeviceStage.DISABLED, DeviceStage.AWAY) is MigrationStep.RETIRE


def test_one_device_s_refusal_leaves_the_others_theirs() -> None:
    with moving(DeviceStage.CONNECTED, DeviceStage.MISSING) as move:
        assert isinstance(move.destination, Place)
        move.destination.problem = TargetRefusedError(target="t", reason="no name for a thing")
        (progress,) = move.run_pass([(WISH, WISH)])
        assert progress.moved is MigrationStage.REFUSED


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_disabled_there_is_enabled_only_when_that_is_wished(dry_run: bool) -> None:
    with moving(DeviceStage.AWAY, DeviceStage.DISABLED, dry_run=dry_run) as move:
        (progress,) = move.run_pass([(WISH, WISH)])
        assert progress.refusal is not None
        assert (progress.moved, progress.refusal.code) == (MigrationStage.REFUSED, "fleet.different_record")


def test_what_is_enabled_again_is_waited_for() -> None:
    with moving(DeviceStage.AWAY, DeviceStage.DISABLED, update=True) as move:
        assert [(one.moved, one.detail) for one in move.run_pass([(WISH, WISH)])] == [
            (MigrationStage.WAITING, "enabled again")
        ]
        assert isinstance(move.destination, Place)
        assert move.destination.standing is DeviceStage.ASSIGNED


def test_what_was_seen_before_the_record_is_another_life() -> None:
    earlier = NOON.replace(hour=11)
    device = {"connectionState": "Disconnected", "lastActivityTime": earlier.isoformat()}
    assert stand_at_hub("d", "hub", device, NOON).standing is DeviceStage.ASSIGNED
    assert stand_at_hub("d", "hub", device, earlier).standing is DeviceStage.AWAY
    assert stand_at_aws("d", {"connected": False, "timestamp": earlier}, NOON).standing is DeviceStage.ASSIGNED
    assert stand_at_aws("d", {"connected": False, "timestamp": NOON}, earlier).standing is DeviceStage.AWAY


def test_a_hub_says_never_by_the_year_one() -> None:
    device = {"connectionState": "Disconnected", "lastActivityTime": "0001-01-01T00:00:00Z"}
    assert stand_at_hub("d", "hub", device, None) == DeviceProgress("d", DeviceStage.ASSIGNED, "hub", None)
    assert stand_at_hub("d", "hub", device | {"status": "disabled"}, None).standing is DeviceStage.DISABLED


def test_a_hub_says_of_a_lost_device_why_it_is_disabled() -> None:
    lost = {"status": "disabled", "statusReason": "taken back: keyCompromise"}
    assert stand_at_hub("d", "hub", lost, None) == DeviceProgress(
        "d", DeviceStage.TAKEN_BACK, "hub, taken back: keyCompromise"
    )
    assert stand_at_hub("d", "hub", lost | {"status": "enabled"}, None).standing is DeviceStage.ASSIGNED


@pytest.mark.parametrize("goal", list(Goal))
def test_who_was_connected_came_as_far_as_can_be_asked(goal: Goal) -> None:
    assert all(DeviceProgress("d", one).reached(goal) for one in (DeviceStage.AWAY, DeviceStage.CONNECTED))
    assert not any(
        DeviceProgress("d", one).reached(goal)
        for one in (DeviceStage.MISSING, DeviceStage.UNASSIGNED, DeviceStage.DISABLED)
    )


def test_what_moved_is_not_taken_back_for_nobody_would_let_it_in(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    source, destination = Place(DeviceStage.CONNECTED), Place(DeviceStage.MISSING)
    for standing in (DeviceStage.MISSING, DeviceStage.AWAY, DeviceStage.AWAY):  # and each run may come after another
        destination.standing = standing
        with Journal(path, destination.identity) as journal:
            list(Move(source, destination, journal, dry_run=False).run_pass([(WISH, WISH)]))
    assert source.standing is DeviceStage.DISABLED
    told: list[JournalOutcome] = []
    with Journal(path, destination.identity) as journal:
        undo_all(destination, journal, told.append, dry_run=False)
    assert [one.refusal.code for one in told if one.refusal is not None] == ["fleet.not_taken_back"]
    assert list(destination.on_record) == ["gateway"]
    assert path.read_text().count("moved") == 1


def test_what_moved_is_named_as_its_record_is_called_since_its_id_may_be_the_name_of_another_s(tmp_path: Path) -> None:
    told: list[JournalOutcome] = []
    with Journal(tmp_path / "journal", "") as journal:
        journal.begin("pump-2", {"registration_id": "pump-1", "thumbprint": "00"})
        journal.add(JournalOutcome("pump-2", "00", TargetOutcome.CREATED))
        journal.settle("pump-2")
        undo_all(Place(DeviceStage.CONNECTED), journal, told.append, dry_run=False)
    (refusal,) = [one.refusal for one in told]
    assert refusal is not None
    assert "`birthmark device rm pump-1`" in refusal.explain_fix()


def test_what_is_waited_for_is_taken_back(tmp_path: Path) -> None:
    source, destination = Place(DeviceStage.CONNECTED), Place(DeviceStage.MISSING)
    with Journal(tmp_path / "journal", destination.identity) as journal:
        list(Move(source, destination, journal, dry_run=False).run_pass([(WISH, WISH)]))
        undo_all(destination, journal, lambda _outcome: None, dry_run=False)
    assert destination.on_record == {}


class Enabling(Place):
    """Notes a way back each time it writes."""

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        note(wish.device_id, {"thumbprint": "00", "was": self.standing.value})
        self.on_record[wish.device_id] = wish.certificate.thumbprint.hex()
        return EnrollmentOutcome(TargetOutcome.UPDATED if update else TargetOutcome.CREATED)


def test_what_one_run_wrote_twice_is_taken_back_by_both_ways(tmp_path: Path) -> None:
    there = Enabling(DeviceStage.MISSING)
    with Journal(tmp_path / "move.journal", "") as journal:
        move = Move(Place(DeviceStage.AWAY), there, journal, dry_run=False, update=True)
        assert [one.detail for one in move.run_pass([(WISH, WISH)])] == ["enrolled now"]
        there.standing = DeviceStage.DISABLED  # by somebody, between two looks
        assert [one.detail for one in move.run_pass([(WISH, WISH)])] == ["enabled again"]
        assert [way["was"] for _, way in journal.list_undoable_writes()] == [DeviceStage.DISABLED, DeviceStage.MISSING]
