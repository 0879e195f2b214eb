"""Limits of a provisioning service's tier, Azure's S1 ("Azure DPS quotas and limits").

A service without a tier has no limits. With several workers, each applies its share of every limit.
"""

import math
from dataclasses import dataclass, field
from enum import Enum

from birthmark.errors import ThrottledError
from birthmark.rate_limits import RateLimits

TIER = "S1"
MOST_RECORDS = 1_000_000
A_MINUTE = 1000
_POLLS, _POLLS_WITHIN_S, _MINUTE = 5, 10, 60


class DpsTierThrottledError(ThrottledError):
    """The quota of the service's tier is exceeded."""

    code = "dps.tier_throttled"
    message = "{dps} exceeded the quota of {limit}. Retry later"
    cause = "The provisioning service {dps} exceeded a quota of the S1 tier: {limit}."
    fix = "Wait for the Retry-After time, or disable the tier's quotas: `birthmark dps tier {dps} none`"
    dps: str
    limit: str


class ThrottledOperation(Enum):
    """A throttled operation: number, period in seconds, and description."""

    REGISTRATION = (A_MINUTE, _MINUTE, f"{A_MINUTE:,} registrations per minute")
    OPERATION = (A_MINUTE, _MINUTE, f"{A_MINUTE:,} operations per minute")
    POLL = (_POLLS, _POLLS_WITHIN_S, f"{_POLLS} polls per device in {_POLLS_WITHIN_S} seconds")


@dataclass(slots=True)
class Paces:
    """Remaining capacity of tiered services for one of `parts` workers; polls, per device, are not divided."""

    parts: int = 1
    _limits: dict[ThrottledOperation, RateLimits] = field(default_factory=dict)

    def take(self, operation: ThrottledOperation, dps: str, now: float, of: str = "") -> None:
        """Take one operation of a service or device, at `now` (monotonic). Raise `DpsTierThrottledError`."""
        told, limits = operation.value[2], self._of(operation)
        name = f"{dps} {of}"
        if not limits.has_room(name, now):
            wait_s = (1 - limits.left(name, now)) / limits.per_s
            raise DpsTierThrottledError(dps=dps, limit=told, retry_after_s=max(1, math.ceil(wait_s)))

    def use_up(self, dps: str, now: float, for_s: float) -> None:
        """Use up a service's registrations and operations, and the capacity of the next `for_s` seconds."""
        for what in (ThrottledOperation.REGISTRATION, ThrottledOperation.OPERATION):
            self._of(what).use_up(f"{dps} ", now, for_s)

    def _of(self, operation: ThrottledOperation) -> RateLimits:
        if (limits := self._limits.get(operation)) is None:
            many, within_s, _told = operation.value
            parts = 1 if operation is ThrottledOperation.POLL else self.parts
            limits = self._limits[operation] = RateLimits(max(1, many / parts), many / parts / within_s, 16384)
        return limits
