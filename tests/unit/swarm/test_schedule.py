"""When a device does what, with time and dice handed in."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.swarm.device import payload_of
from birthmark.swarm.model import DeviceGroup, Fault
from birthmark.swarm.rules import device_event_schedule
from birthmark.swarm.rules.behavior import Act, BehaviorPlan
from birthmark.swarm.rules.device_event_schedule import Dice

ROLL = st.floats(0, 1, exclude_max=True)
NOW = st.floats(0, 1e6)


def a_group(**given_: object) -> DeviceGroup:
    return DeviceGroup("meters", **{"count": 10, **given_})  # type: ignore[arg-type]  # fields by name


@given(number=st.integers(0, 10_000), ramp=st.floats(0.1, 1e4), start=st.floats(0, 1e4))
def test_devices_arrive_at_the_pace_of_the_ramp(number: int, ramp: float, start: float) -> None:
    group = a_group(ramp=ramp, start_s=start)
    assert device_event_schedule.arrival_s(group, number) == pytest.approx(start + number / ramp)
    assert (
        device_event_schedule.arrival_s(group, number + 1) > device_event_schedule.arrival_s(group, number)
        or number / ramp > 1e9
    )


@given(now=NOW, roll=ROLL, interval=st.floats(0.1, 1e4), jitter=st.floats(0, 1))
def test_a_message_is_due_within_the_jitter_about_the_interval(
    now: float, roll: float, interval: float, jitter: float
) -> None:
    group = a_group(interval_s=interval, jitter=jitter)
    due = device_event_schedule.next_message_s(group, now, roll) - now
    assert interval * (1 - jitter) - 1e-6 <= due <= interval * (1 + jitter) + 1e-6
    assert 0 <= device_event_schedule.next_message_s(group, now, roll, is_first=True) - now <= interval + 1e-6


@given(failures=st.integers(-1, 2000), roll=ROLL)
def test_a_backoff_is_anything_up_to_a_bound_that_doubles_and_ends(failures: int, roll: float) -> None:
    waited = device_event_schedule.backoff_s(failures, roll)
    bound = min(
        device_event_schedule.LONGEST_BACKOFF_S,
        device_event_schedule.FIRST_BACKOFF_S * 2 ** max(0, min(failures, 50) - 1),
    )
    assert 0 <= waited <= (bound if failures > 0 else 0)


@given(now=NOW, roll=ROLL, cut=st.floats(0.1, 1e4))
def test_a_line_breaks_later_and_only_where_that_is_asked_for(now: float, roll: float, cut: float) -> None:
    assert device_event_schedule.next_cut_s(a_group(cut_s=cut), now, roll) >= now
    assert device_event_schedule.next_cut_s(a_group(), now, roll) == math.inf


def test_lines_break_on_the_average_as_often_as_was_asked_for() -> None:
    dice, group = Dice(5), a_group(cut_s=30.0)
    waits = [device_event_schedule.next_cut_s(group, 0, dice.roll()) for _ in range(5000)]
    assert sum(waits) / len(waits) == pytest.approx(30, rel=0.1)


def test_a_storm_comes_at_its_moments_and_not_again() -> None:
    group = a_group(storm_s=(20.0, 10.0))
    assert [device_event_schedule.next_storm_s(group, now) for now in (0, 10, 20)] == [10, 20, math.inf]


def test_a_renewal_is_due_after_a_time_or_at_a_share_of_the_life() -> None:
    assert device_event_schedule.next_renewal_s(a_group(renew_s=5.0), 100, 0, 0) == 105
    assert device_event_schedule.next_renewal_s(a_group(renew_at=0.8), 100, 90, 50) == 130
    assert device_event_schedule.next_renewal_s(a_group(renew_at=0.8), 100, 0, 50) == 100
    assert device_event_schedule.next_renewal_s(a_group(), 100, 0, 50) == math.inf


@given(
    count=st.integers(1, 500),
    shares=st.lists(
        st.tuples(st.sampled_from(list(Fault)), st.floats(0, 0.3)), unique_by=lambda one: one[0], max_size=6
    ),
)
def test_as_many_misbehave_as_were_asked_for(count: int, shares: list[tuple[Fault, float]]) -> None:
    found = device_event_schedule.faults_of(a_group(count=count, misbehave=tuple(shares)))
    assert len(found) == count
    counted = Counter(one for one in found if one is not None)
    left = count
    for fault, share in shares:
        wanted = min(left, max(1, round(share * count))) if share > 0 else 0
        assert counted[fault] == wanted
        left -= wanted


def test_what_is_due_first_is_done_first_and_of_two_what_ends_more() -> None:
    plan = BehaviorPlan(send_s=5, renew_s=5, cut_s=9)
    assert plan.next() == (Act.RENEW, 5)
    plan.renew_s = math.inf
    assert plan.next() == (Act.SEND, 5)
    plan.storm_s = plan.leave_s = 5
    assert plan.next() == (Act.STORM, 5)


def test_a_group_that_does_nothing_waits_for_ever() -> None:
    plan = BehaviorPlan.on_connecting(a_group(interval_s=0.0), 0, Dice(1), math.inf)
    assert plan.next()[1] == math.inf


@given(seed=st.integers(0, 2**31), number=st.integers(0, 10_000))
def test_the_same_seed_rolls_the_same_and_within_its_bounds(seed: int, number: int) -> None:
    rolls = [Dice(seed, number).roll() for _ in range(2)]
    assert rolls[0] == rolls[1]
    assert 0 <= rolls[0] < 1


def test_devices_roll_dice_of_their_own() -> None:
    rolled = [Dice(1, number).roll() for number in range(1000)]
    assert len(set(rolled)) == 1000
    assert sum(rolled) / 1000 == pytest.approx(0.5, abs=0.05)


@given(size=st.integers(1, 4096), number=st.integers(1, 10**6))
def test_a_message_has_the_size_that_was_asked_for(size: int, number: int) -> None:
    assert len(payload_of(a_group(size=size), "meter-1", number)) == size


def test_a_template_is_filled_in() -> None:
    assert payload_of(a_group(payload='{"who": "{name}", "n": {n}}'), "meter-1", 7) == b'{"who": "meter-1", "n": 7}'
