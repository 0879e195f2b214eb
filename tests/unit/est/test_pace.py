"""A herd becomes a queue: everyone has a turn, keeps it, and nobody's certificate ends while others are served."""

import heapq
import random
from collections import Counter
from collections.abc import Callable

import pytest

from birthmark.est.rules.caller_rate_limit import CallerRateLimit, EstBusyError


def wait_of(pace: CallerRateLimit, name: str, now: float, **options: float) -> int:
    """How long `name` is told to wait; 0 when it is let through."""
    try:
        pace.take(name, now, **options)
    except EstBusyError as error:
        return error.retry_after_s
    return 0


def test_a_burst_is_let_through_and_the_next_gets_a_turn() -> None:
    pace = CallerRateLimit(per_s=10, burst_s=1)
    waits = [wait_of(pace, f"device-{n}", 0.0) for n in range(30)]
    assert waits[:10] == [0] * 10
    assert waits[12:] == [2] * 8 + [3] * 10 or waits[12:] == [2] * 9 + [3] * 9


def test_whoever_comes_back_at_its_turn_is_let_through_however_many_came_since() -> None:
    pace = CallerRateLimit(per_s=10, burst_s=1)
    for n in range(30):
        wait_of(pace, f"device-{n}", 0.0)
    wait = wait_of(pace, "patient", 0.0)
    for n in range(200):
        wait_of(pace, f"later-{n}", wait - 0.5)
    assert wait_of(pace, "patient", float(wait)) == 0


def test_whoever_comes_back_early_keeps_its_turn_and_takes_no_other() -> None:
    pace = CallerRateLimit(per_s=1, burst_s=1)
    waits = [wait_of(pace, f"device-{n}", 0.0) for n in range(20)]
    assert wait_of(pace, "device-19", 5.0) == waits[19] - 5
    assert wait_of(pace, "another", 5.0) == waits[19] - 5 + 1


def test_a_certificate_that_would_end_before_its_turn_goes_first_up_to_a_quarter_of_the_pace() -> None:
    pace = CallerRateLimit(per_s=4, burst_s=1)
    for n in range(1000):
        wait_of(pace, f"device-{n}", 0.0)
    assert wait_of(pace, "urgent", 0.0, ends_in_s=60.0) == 0
    assert wait_of(pace, "has time", 0.0, ends_in_s=3600.0) > 60
    assert [wait_of(pace, f"urgent-{n}", 0.0, ends_in_s=60.0) == 0 for n in range(3)] == [True, False, False]


def test_after_a_quiet_hour_nothing_of_a_storm_is_left() -> None:
    pace = CallerRateLimit(per_s=10, burst_s=1)
    for n in range(100):
        wait_of(pace, f"device-{n}", 0.0)
    assert wait_of(pace, "device-99", 4000.0) == 0
    assert wait_of(pace, "new", 4000.0) == 0


def test_what_is_remembered_is_bounded() -> None:
    pace = CallerRateLimit(per_s=1, burst_s=1, max_waiting=10)
    assert all([wait_of(pace, f"device-{n}", 0.0) for n in range(1000)][2:])
    assert len(pace._turns) == 10


def storm(devices: int, pace: CallerRateLimit, first: Callable[[random.Random], float]) -> Counter[int]:
    """Issued by second, when all come at `first` and each comes back when it is told."""
    dice = random.Random(7)
    queue = [(first(dice), n) for n in range(devices)]
    heapq.heapify(queue)
    issued: Counter[int] = Counter()
    while queue:
        now, n = heapq.heappop(queue)
        if (wait := wait_of(pace, f"device-{n}", now)) == 0:
            issued[int(now)] += 1
        else:
            heapq.heappush(queue, (now + wait + dice.random(), n))
    return issued


@pytest.mark.parametrize("spread_s", [0.0, 60.0, 3600.0])
def test_a_herd_is_served_evenly(spread_s: float) -> None:
    issued = storm(20_000, CallerRateLimit(per_s=50), lambda dice: dice.random() * spread_s)
    seconds = max(issued) - min(issued) + 1
    assert issued.total() == 20_000
    minutes = Counter({m: sum(issued[s] for s in range(60 * m, 60 * m + 60)) for m in range(seconds // 60 + 1)})
    assert max(minutes.values()) / 60 <= 2 * issued.total() / seconds
