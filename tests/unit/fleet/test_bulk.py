"""Many at once: what is new goes together, everything else is asked for by itself, and the target's word counts."""

import errno
import os
import signal
import threading
import time
from collections.abc import Sequence

import pytest

from birthmark.fleet.bulk_enrollment import enroll_all
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentOutcome, EnrollmentRequest, Note, TargetOutcome, unnoted
from birthmark.fleet.errors import TargetUnreachableError
from birthmark.pki.names_and_registration_ids import RegistrationIdInvalidError
from support.agent.memory_target import MemoryTarget
from support.pki.pki_builders import a_device

WISHES = [EnrollmentRequest(f"device-{n}", a_device(common_name=f"device-{n}").certificate) for n in range(5)]


def enroll(target: MemoryTarget, *, dry_run: bool = False) -> dict[str, TargetOutcome]:
    told: list[JournalOutcome] = []
    with Journal(None, target.identity) as journal:
        enroll_all(target, WISHES, journal, told.append, update=False, dry_run=dry_run, workers=1)
    return {outcome.device_id: outcome.done for outcome in told}


def test_what_is_new_goes_together_as_many_as_the_target_takes() -> None:
    target = MemoryTarget(max_batch_size=3)
    assert set(enroll(target).values()) == {TargetOutcome.CREATED}
    assert (target.batches, target.alone) == ([3, 2], [])


def test_what_the_target_did_not_create_is_asked_for_by_itself() -> None:
    target = MemoryTarget(max_batch_size=3)
    target.on_record["device-1"] = WISHES[1].certificate.thumbprint.hex()
    assert enroll(target)["device-1"] is TargetOutcome.UNCHANGED
    assert target.alone == ["device-1"]


def test_a_target_that_takes_one_at_a_time_is_given_one() -> None:
    target = MemoryTarget()
    enroll(target)
    assert (target.batches, len(target.alone)) == ([], 5)


def test_a_rehearsal_writes_nothing() -> None:
    target = MemoryTarget(max_batch_size=3)
    assert set(enroll(target, dry_run=True).values()) == {TargetOutcome.WOULD_CREATE}
    assert (target.batches, target.on_record) == ([], {})


class Refusing(MemoryTarget):
    """Refuses what comes together, and says why of each by itself."""

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note = unnoted) -> Sequence[bool]:
        raise RegistrationIdInvalidError

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        if wish.device_id == "device-2":
            raise RegistrationIdInvalidError
        return super().enroll(wish, note, update=update, dry_run=dry_run)


def test_one_that_can_never_be_enrolled_does_not_end_the_others() -> None:
    done = enroll(Refusing(max_batch_size=3))
    assert done.pop("device-2") is TargetOutcome.REFUSED
    assert set(done.values()) == {TargetOutcome.CREATED}


class Ending(MemoryTarget):
    """Answers no more after what was created together."""

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        raise TargetUnreachableError(target="memory", reason="gone")


def test_what_was_created_is_told_whatever_ends_the_run() -> None:
    target = Ending(max_batch_size=5)
    target.on_record["device-4"] = "another"
    told: list[JournalOutcome] = []
    with Journal(None, target.identity) as journal, pytest.raises(TargetUnreachableError):
        enroll_all(target, WISHES, journal, told.append, update=False, dry_run=False, workers=1)
    assert [outcome.device_id for outcome in told] == [f"device-{n}" for n in range(4)]


def test_an_interrupt_waits_until_what_is_known_is_told() -> None:
    target, told = MemoryTarget(max_batch_size=5), list[JournalOutcome]()

    def tell(outcome: JournalOutcome) -> None:
        if not told:
            signal.raise_signal(signal.SIGINT)
        told.append(outcome)

    with Journal(None, target.identity) as journal, pytest.raises(KeyboardInterrupt):
        enroll_all(target, WISHES, journal, tell, update=False, dry_run=False, workers=1)
    assert len(told) == len(WISHES)


def test_an_interrupt_that_another_thread_takes_waits_as_well() -> None:
    target, told, over = MemoryTarget(max_batch_size=5), list[JournalOutcome](), threading.Event()
    other = threading.Thread(target=over.wait, daemon=True)
    other.start()

    def tell(outcome: JournalOutcome) -> None:
        if not told:
            os.kill(os.getpid(), signal.SIGINT)  # any thread that does not hold it back is given it
            time.sleep(0.05)
        told.append(outcome)

    with Journal(None, target.identity) as journal, pytest.raises(KeyboardInterrupt):
        enroll_all(target, WISHES, journal, tell, update=False, dry_run=False, workers=1)
    over.set()
    assert len(told) == len(WISHES)


class Full(Journal):
    """Its disk is full from the second outcome on."""

    def add(self, outcome: JournalOutcome) -> None:
        if outcome.device_id != WISHES[0].device_id:
            raise OSError(errno.ENOSPC, "No space left on device", "run.journal")


def test_what_a_full_disk_does_not_keep_is_told_all_the_same() -> None:
    target, told = MemoryTarget(max_batch_size=5), list[JournalOutcome]()
    with pytest.raises(OSError, match="No space"):
        enroll_all(target, WISHES, Full(None, ""), told.append, update=False, dry_run=False, workers=1)
    assert len(told) == len(WISHES)


def test_a_run_in_a_thread_of_its_own_needs_no_signals() -> None:
    done = list[dict[str, TargetOutcome]]()
    running = threading.Thread(target=lambda: done.append(enroll(MemoryTarget(max_batch_size=3))))
    running.start()
    running.join(10)
    assert [set(one.values()) for one in done] == [{TargetOutcome.CREATED}]
