"""What a run counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.swarm.model import DeviceMetrics, SwarmState
from birthmark.swarm.progress_display import line_of, sparks
from birthmark.swarm.run_metrics import MAX_POINTS, Latencies, RunMetrics


@given(st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_percentile_is_right_within_a_tenth(seconds: list[float], share: float) -> None:
    took = Latencies()
    for one in seconds:
        took.add(one)
    exact = sorted(seconds)[max(0, -int(-len(seconds) * share // 1) - 1)]
    assert exact * 0.99 <= took.at(share) <= exact * 1.11
    assert took.at(1) == pytest.approx(max(seconds), rel=0.11)


def test_no_latency_is_none() -> None:
    assert Latencies().at(0.5) == 0


def test_a_device_is_in_one_state_at_a_time() -> None:
    counting, tally = RunMetrics(), DeviceMetrics("a", "g")
    counting.states[SwarmState.WAITING] = 1
    for now, state in enumerate(
        (SwarmState.REGISTERING, SwarmState.CONNECTED, SwarmState.RENEWING, SwarmState.SENDING)
    ):
        counting.enter(tally, state, float(now))
    assert +counting.states == {SwarmState.SENDING: 1}
    assert counting.standing == 1
    assert tally.since_s == 3


def test_a_device_is_missing_since_it_was_lost_however_often_it_tries_to_come_back() -> None:
    counting, tally = RunMetrics(), DeviceMetrics("a", "g", state=SwarmState.CONNECTED)
    for now, state in enumerate((SwarmState.AWAY, SwarmState.REGISTERING, SwarmState.AWAY, SwarmState.REFUSED), 10):
        counting.enter(tally, state, float(now))
    assert tally.since_s == 10
    counting.enter(tally, SwarmState.CONNECTED, 20.0)
    assert tally.since_s == 20
    counting.enter(tally, SwarmState.AWAY, 30.0, is_planned=True)
    counting.enter(tally, SwarmState.REGISTERING, 90.0)
    assert (tally.since_s, tally.is_planned) == (90, False)


def test_the_timeline_stays_short_however_long_a_run_lasts() -> None:
    counting = RunMetrics()
    for second in range(10_000):
        counting.tick(float(second))
    assert 200 < len(counting.timeline) <= MAX_POINTS
    moments = [point["s"] for point in counting.timeline]
    assert moments == sorted(moments)
    assert moments[-1] > 9_900


def test_rates_are_of_the_time_since_the_last_look() -> None:
    counting = RunMetrics()
    counting.tick(1.0)
    for _ in range(30):
        counting.record_latency("publish", 0.01)
    assert counting.tick(3.0)["acknowledged_per_s"] == 15
    assert "messages/s 15" in line_of(counting, 3.0)


def test_a_curve_fits_into_a_line() -> None:
    assert sparks([0, 1, 2, 4]) == " ▂▄█"
    assert len(sparks([1.0] * 500)) == 60
    assert sparks([]) == ""
