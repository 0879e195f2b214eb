"""Schedule: arrivals, messages, lost connections, renewals, and the misbehaving devices."""

import math
from collections.abc import Sequence

from birthmark.swarm.model import DeviceGroup, Fault

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class Dice:
    """Random numbers from 0 to less than 1, reproducible by seed."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, number: int = 0) -> None:
        self._state = _mixed((seed * _STEP + number * 0xD1B54A32D192ED03) & _MASK)

    def roll(self) -> float:
        """Return the next number."""
        self._state = (self._state + _STEP) & _MASK
        return (_mixed(self._state) >> 11) / (1 << 53)


def _mixed(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
_DOUBLINGS = 30  # a greater power exceeds any backoff


def arrival_s(group: DeviceGroup, number: int) -> float:
    """Return when the device with this number starts, in seconds of the run."""
    return group.start_s + (number / group.ramp if group.ramp > 0 else 0.0)


def next_message_s(group: DeviceGroup, now: float, roll: float, *, is_first: bool = False) -> float:
    """Return when the next message is due: the interval with jitter, and for the first one any time within it."""
    if not group.interval_s:
        return math.inf
    if is_first:
        return now + group.interval_s * roll
    return now + group.interval_s * (1 + group.jitter * (2 * roll - 1))


def next_cut_s(group: DeviceGroup, now: float, roll: float) -> float:
    """Return the time of the next connection loss: random, and equally likely in any second."""
    return now - group.cut_s * math.log(1 - roll) if group.cut_s else math.inf


def next_leave_s(group: DeviceGroup, now: float) -> float:
    """Return when the device disconnects by itself."""
    return now + group.stay_s if group.stay_s else math.inf


def next_storm_s(group: DeviceGroup, now: float) -> float:
    """Return the next time at which all connections of the group are lost."""
    return min((moment for moment in group.storm_s if moment > now), default=math.inf)


def next_renewal_s(group: DeviceGroup, now: float, begun: float, life_s: float) -> float:
    """Return when the certificate is renewed: after an interval, or at a share of its lifetime from `begun`."""
    if group.renew_s:
        return now + group.renew_s
    return max(now, begun + group.renew_at * life_s) if group.renew_at else math.inf


def backoff_s(failures: int, roll: float) -> float:
    """Return the delay after that many consecutive failures: random up to a bound that doubles (full jitter)."""
    if failures <= 0:
        return 0.0
    return roll * min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, _DOUBLINGS))


def faults_of(group: DeviceGroup) -> Sequence[Fault | None]:
    """Return each device's fault, if any. A nonzero share is at least one device."""
    wanted = [(fault, max(1, round(share * group.count))) for fault, share in group.misbehave if share > 0]
    slots: list[Fault | None] = [None] * group.count
    free = list(range(group.count))
    for fault, count in wanted:
        for place in _spread(free, count):
            slots[place] = fault
        free = [place for place in free if slots[place] is None]
    return slots


def _spread(free: Sequence[int], count: int) -> list[int]:
    """Return `count` of the free positions, spread as evenly as possible."""
    count = min(count, len(free))
    return [free[place * len(free) // count] for place in range(count)]
