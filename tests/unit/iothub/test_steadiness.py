"""A clock is believed where something is deleted by it when it went on undisturbed for a while."""

from birthmark.iothub.rules.steadiness import STEADY_S, Steadiness


def test_a_clock_that_was_just_met_is_not_steady() -> None:
    assert not Steadiness().seen(1e9, 0)


def test_it_is_steady_after_a_while() -> None:
    clock = Steadiness()
    assert [clock.seen(1e9 + after, after) for after in (0, STEADY_S - 1, STEADY_S)] == [False, False, True]


def test_one_that_jumps_is_not_until_the_same_time_after() -> None:
    clock = Steadiness()
    clock.seen(1e9, 0)
    assert clock.seen(1e9 + STEADY_S, STEADY_S)
    assert not clock.seen(2e9, STEADY_S + 60)
    assert not clock.seen(1e9 + STEADY_S + 120, STEADY_S + 120)  # back again
    assert clock.seen(1e9 + 2 * STEADY_S + 120, 2 * STEADY_S + 120)


def test_one_that_is_put_right_little_by_little_stays_steady() -> None:
    clock = Steadiness()
    assert [clock.seen(1e9 + 0.999 * after, after) for after in (0, STEADY_S)] == [False, True]
