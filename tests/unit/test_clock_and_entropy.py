"""A clock is believed where something is deleted by it: about what began since it goes on, and later about all."""

from datetime import datetime, timedelta

from birthmark.clock_and_entropy import STEADY_S, ClockStability
from birthmark.store import to_micros
from support.fakes import FakeClock

HOUR, STEADY = timedelta(hours=1), timedelta(seconds=STEADY_S)


def is_believed(steadiness: ClockStability, began: datetime) -> bool:
    """Say whether what began then may be over by now."""
    return to_micros(began) >= steadiness.since()


def test_a_clock_that_was_just_met_is_not_steady() -> None:
    assert not ClockStability(FakeClock()).is_steady()


def test_it_is_steady_after_a_while() -> None:
    clock = FakeClock()
    steadiness = ClockStability(clock)
    clock.move(STEADY - timedelta(seconds=1))
    assert not steadiness.is_steady()
    clock.move(timedelta(seconds=1))
    assert steadiness.is_steady()


def test_one_that_jumps_is_not_until_the_same_time_after() -> None:
    clock = FakeClock()
    steadiness = ClockStability(clock)
    clock.move(STEADY)
    assert steadiness.is_steady()
    for there_and_back in (HOUR, -HOUR):
        clock.jump(there_and_back)
        assert not steadiness.is_steady()
        clock.move(timedelta(minutes=1))
    clock.move(STEADY)
    assert steadiness.is_steady()


def test_one_that_is_put_right_little_by_little_stays_steady() -> None:
    clock = FakeClock()
    steadiness = ClockStability(clock)
    clock.move(STEADY)
    clock.jump(timedelta(seconds=-1))
    assert steadiness.is_steady()


def test_what_began_since_the_clock_goes_on_undisturbed_is_over_when_the_clock_says_so() -> None:
    clock = FakeClock()
    steadiness = ClockStability(clock)
    began = clock.now()
    clock.move(timedelta(minutes=5))
    assert is_believed(steadiness, began)


def test_what_began_before_a_jump_is_not_over_by_it() -> None:
    clock = FakeClock()
    steadiness = ClockStability(clock)
    clock.move(STEADY)
    began = clock.now()
    clock.jump(HOUR)
    assert not is_believed(steadiness, began)
    clock.jump(-HOUR)
    assert is_believed(steadiness, began), "as far as nobody can tell from its never having been away"


def test_what_began_long_before_the_first_look_is_over_when_the_clock_is_steady() -> None:
    clock = FakeClock()
    steadiness = ClockStability(clock)
    began = clock.now() - HOUR
    assert not is_believed(steadiness, began)
    clock.move(STEADY)
    assert is_believed(steadiness, began)
