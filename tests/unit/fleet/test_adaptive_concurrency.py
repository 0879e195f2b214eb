"""A target that is asked too much is asked less, and every row is enrolled all the same, once."""

import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import ThrottledError
from birthmark.fleet.adaptive_concurrency import AdaptiveConcurrency, PacedTarget
from birthmark.fleet.bulk_enrollment import enroll_all, undo_all
from birthmark.fleet.device_migration import MigrationStage, Move
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage, iter_progress
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome
from birthmark.fleet.enrollment_target import (
    EnrollmentOutcome,
    EnrollmentRequest,
    Note,
    RetirementOutcome,
    TargetOutcome,
    WayBack,
    unnoted,
)
from birthmark.fleet.errors import TargetThrottledError
from support.agent.memory_target import MemoryTarget
from support.pki.pki_builders import a_device

WISHES = [EnrollmentRequest(f"d{n}", a_device(common_name=f"d{n}").certificate) for n in range(12)]


def too_much(wait_s: int = 0) -> TargetThrottledError:
    return TargetThrottledError(target="memory", reason="slowly", retry_after_s=wait_s)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr("birthmark.fleet.adaptive_concurrency._MOST_S", 0.01)


class Strained(MemoryTarget):
    """Refuses some questions before it answers, each so often."""

    def __init__(self, times: int, max_batch_size: int = 1) -> None:
        super().__init__(max_batch_size=max_batch_size)
        self._left = dict.fromkeys(("enroll", "new", "stand", "back"), times)
        self._lock = threading.Lock()

    def _may(self, what: str) -> None:
        with self._lock:
            self._left[what] -= 1
            if self._left[what] >= 0:
                raise too_much()

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note = unnoted) -> Sequence[bool]:
        self._may("new")
        return super().enroll_new(wishes, note)

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        note(wish.device_id, {"thumbprint": wish.certificate.thumbprint.hex()})
        self._may("enroll")
        return super().enroll(wish, note, update=update, dry_run=dry_run)

    def undo_enrollment(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        self._may("back")
        return super().undo_enrollment(device_id, way, dry_run=dry_run)

    def get_progress(self, wish: EnrollmentRequest) -> DeviceProgress:
        self._may("stand")
        return DeviceProgress(wish.device_id, DeviceStage.CONNECTED)


@pytest.mark.parametrize("max_batch_size", [1, 5])
def test_what_is_throttled_is_asked_for_again_and_nothing_is_refused_or_doubled(tmp_path, max_batch_size: int) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    target, told = Strained(6, max_batch_size), list[JournalOutcome]()
    with Journal(tmp_path / "j", "here") as journal:
        enroll_all(target, WISHES, journal, told.append, update=False, dry_run=False)
    assert sorted(outcome.device_id for outcome in told) == sorted(wish.device_id for wish in WISHES)
    assert {outcome.done for outcome in told} == {TargetOutcome.CREATED}
    undone = list[JournalOutcome]()
    with Journal(tmp_path / "j", "here") as journal:
        undo_all(target, journal, undone.append, dry_run=False)
    assert [outcome.done for outcome in undone] == [TargetOutcome.TAKEN_BACK] * len(WISHES)


def test_a_device_of_several_writes_is_not_tried_again_when_one_of_them_was_refused() -> None:
    target, told = Strained(1), list[JournalOutcome]()
    target.is_atomic = False
    with pytest.raises(ThrottledError):
        enroll_all(target, WISHES[:1], Journal(None, ""), told.append, update=False, dry_run=False)
    enroll_all(target, WISHES[:1], Journal(None, ""), told.append, update=False, dry_run=False)
    assert [outcome.done for outcome in told] == [TargetOutcome.CREATED]


def test_devices_are_followed_at_a_pace_that_is_borne() -> None:
    assert len(list(iter_progress(Strained(5), WISHES))) == len(WISHES)


def test_a_target_that_never_bears_it_ends_the_run_and_what_is_done_is_told() -> None:
    told = list[JournalOutcome]()
    with pytest.raises(ThrottledError):
        enroll_all(Strained(10_000), WISHES, Journal(None, ""), told.append, update=False, dry_run=False)
    assert told == []


def test_a_refusal_halves_and_answers_raise_it_again_one_by_one() -> None:
    pace = AdaptiveConcurrency()
    pace.throttled(0, 1, 0, 0.5)
    assert pace.limit == 4
    pace.throttled(0, 1, 0, 0.5)  # of those that were under way
    assert pace.limit == 4
    for _ in range(4):
        pace.answered()
    assert pace.limit == 5
    for _ in range(100):
        pace.answered()
    assert pace.limit == 8


def test_the_targets_own_time_is_kept() -> None:
    pace = AdaptiveConcurrency()
    pace.throttled(100.0, 1, 0.005, 0.0)
    assert pace.resume_at >= 100.005


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.integers(1, 8), st.floats(0, 1)), max_size=60))
def test_there_is_always_one_who_may_ask_and_never_more_than_most(
    told: list[tuple[bool, float, int, float]],
) -> None:
    pace, now = AdaptiveConcurrency(), 0.0
    for is_answered, later, attempt, dice in told:
        now += later
        if is_answered:
            pace.answered()
        else:
            pace.throttled(now, attempt, 0, dice)
        assert 1 <= pace.limit <= pace.most
        assert pace.resume_at <= now + 61


def test_nobody_waits_for_a_turn_when_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.fleet.adaptive_concurrency._MOST_S", 60.0)
    paced, times = PacedTarget(2), list[int]()
    asked = threading.Event()

    def question() -> None:
        times.append(1)
        asked.set()
        raise too_much(30)

    def ask() -> None:
        with pytest.raises(ThrottledError):
            paced.ask(question)

    waiting = threading.Thread(target=ask)
    waiting.start()
    asked.wait(5)
    time.sleep(0.05)
    paced.stop()
    waiting.join(5)
    assert not waiting.is_alive()
    assert len(times) == 1, "who was to come later does not come at once"


class Ticking(SystemClock):
    """A clock that is a second later each time it is read."""

    def __init__(self) -> None:
        self._time = 0.0

    def monotonic(self) -> float:
        self._time += 1.0
        return self._time


def test_a_pause_that_ends_between_two_looks_at_the_clock_keeps_nobody_waiting() -> None:
    paced, told = PacedTarget(1, Ticking()), list[str]()
    paced.pace.resume_at = 1.5
    asking = threading.Thread(target=lambda: told.append(paced.ask(lambda: "answer")), daemon=True)
    asking.start()
    asking.join(5)
    assert told == ["answer"]


def test_many_who_are_never_answered_give_up_together_and_not_one_after_the_other() -> None:
    asked = list[int]()

    class Never(Strained):
        def enroll(
            self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
        ) -> EnrollmentOutcome:
            asked.append(1)
            raise too_much()

    with pytest.raises(ThrottledError):
        enroll_all(Never(0), WISHES, Journal(None, ""), list[JournalOutcome]().append, update=False, dry_run=False)
    assert len(asked) <= 12 + 8 + 4 + 2 + 4 + 12  # a round each, and once more when it is over


def test_a_move_whose_writes_were_cut_off_is_not_tried_again_before_the_next_run() -> None:
    class Elsewhere(Strained):
        """A cloud of several writes, where nobody is yet."""

        is_atomic = False

        def get_progress(self, wish: EnrollmentRequest) -> DeviceProgress:
            return DeviceProgress(wish.device_id, DeviceStage.MISSING)

        def reinstate(self, wish: EnrollmentRequest) -> None:
            raise NotImplementedError

        def retire(self, wish: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
            raise NotImplementedError

    class Here(Elsewhere):
        def get_progress(self, wish: EnrollmentRequest) -> DeviceProgress:
            return DeviceProgress(wish.device_id, DeviceStage.CONNECTED)

    there, pairs = Elsewhere(1), [(WISHES[0], WISHES[0])]
    move = Move(Here(0), there, Journal(None, ""), dry_run=False)
    with pytest.raises(ThrottledError):
        list(move.run_pass(pairs))
    assert there.alone == []
    assert [one.moved for one in move.run_pass(pairs)] == [MigrationStage.WAITING]


def test_a_long_pause_is_told_once_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.fleet.adaptive_concurrency._MOST_S", 60.0)
    told, together = list[float](), threading.Barrier(4)
    paced = PacedTarget(4, says=told.append)

    def question() -> None:
        together.wait(5)
        raise too_much(30)

    def ask() -> None:
        with pytest.raises((ThrottledError, threading.BrokenBarrierError)):
            paced.ask(question)

    waiting = [threading.Thread(target=ask) for _ in range(4)]
    for one in waiting:
        one.start()
    while paced.pace.resume_at == 0:
        time.sleep(0.01)
    time.sleep(0.1)
    together.abort()
    paced.stop()
    for one in waiting:
        one.join(5)
    (seconds,) = told
    assert 30 <= seconds <= 38
