"""Many at once: what is new goes together, everything else is asked for by itself, and the target's word counts."""

from birthmark.fleet.bulk import enroll_all
from birthmark.fleet.journal import Journal, Outcome
from birthmark.fleet.target import Done, EnrollmentRequest
from memory_target import MemoryTarget
from pki_builders import a_device

WISHES = [EnrollmentRequest(f"device-{n}", a_device(common_name=f"device-{n}").certificate) for n in range(5)]


def enroll(target: MemoryTarget, *, dry_run: bool = False) -> dict[str, Done]:
    told: list[Outcome] = []
    with Journal(None, target.identity) as journal:
        enroll_all(target, WISHES, journal, told.append, update=False, dry_run=dry_run, workers=1)
    return {outcome.device_id: outcome.done for outcome in told}


def test_what_is_new_goes_together_as_many_as_the_target_takes() -> None:
    target = MemoryTarget(most_at_once=3)
    assert set(enroll(target).values()) == {Done.CREATED}
    assert (target.batches, target.alone) == ([3, 2], [])


def test_what_the_target_did_not_create_is_asked_for_by_itself() -> None:
    target = MemoryTarget(most_at_once=3)
    target.on_record["device-1"] = WISHES[1].certificate.thumbprint.hex()
    assert enroll(target)["device-1"] is Done.UNCHANGED
    assert target.alone == ["device-1"]


def test_a_target_that_takes_one_at_a_time_is_given_one() -> None:
    target = MemoryTarget()
    enroll(target)
    assert (target.batches, len(target.alone)) == ([], 5)


def test_a_rehearsal_writes_nothing() -> None:
    target = MemoryTarget(most_at_once=3)
    assert set(enroll(target, dry_run=True).values()) == {Done.WOULD_CREATE}
    assert (target.batches, target.on_record) == ([], {})
