"""Throttling and quotas of a hub tier ("IoT Hub quotas and throttling").

A hub without a tier has no limits. With several workers, each enforces its part of every limit, as their counters are
not shared. Counters restart with the process.
"""

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, TypeVar

from birthmark.errors import BirthmarkError, ForbiddenError, InvalidRequestError, PolicyError, ThrottledError

_MINUTE, _KIB = 60, 1024
BACKLOG_S = 30.0
"""Maximum time that device traffic waits for its turn before its connection is closed."""
PATIENCE_S = 5.0
"""Maximum time that a device request waits for its turn before a 429 response."""
AT_A_TURN = 10
"""Messages of one device per turn."""
MAX_UNITS = 200


class TierInvalidError(InvalidRequestError):
    """The tier or its number of units is not valid."""

    code = "iothub.tier_invalid"
    message = "{tier} is not a valid tier"
    cause = (
        "{tier} is not a valid hub tier. The valid tiers are F1 with one unit, and S1, S2 and S3 with 1 to {most} "
        "units."
    )
    fix = "Set a valid tier: `birthmark hub tier {hub} S1 --units 2`"
    hub: str
    most: int = MAX_UNITS
    tier: str


class TierThrottledError(ThrottledError):
    """The rate limit of the hub's tier is exceeded."""

    code = "iothub.tier_throttled"
    message = "Hub {hub} exceeded the limit of {limit}; retry later"
    cause = "Hub {hub} exceeded the limit of {limit} of its tier, {tier}."
    fix = (
        "Wait for the time in Retry-After, or select a larger tier: `birthmark hub tier {hub} {larger} --units {units}`"
    )
    hub: str
    larger: str
    limit: str
    tier: str
    units: int


class TierQuotaError(ForbiddenError):
    """The daily message quota is used up."""

    code = "iothub.tier_quota"
    message = "Hub {hub} has used its daily quota of {most} messages"
    cause = "Hub {hub} has the tier {tier}, whose daily quota of {most} messages of {meter} bytes is used up."
    fix = "Wait until the day ends (UTC), or select a larger tier: `birthmark hub tier {hub} {larger} --units {units}`"
    hub: str
    larger: str
    meter: int
    most: str
    tier: str
    units: int


class TooManyDevicesError(PolicyError):
    """The hub has the maximum number of devices of its tier."""

    code = "iothub.tier_full"
    message = "Hub {hub} has {most} devices, the maximum of its tier"
    cause = "Hub {hub} has the tier {tier}, which is limited to {most} devices."
    fix = (
        "Select a larger tier: `birthmark hub tier {hub} {larger} --units {units}`. Alternatively, delete a device. "
        "To list the devices: `birthmark hub device ls --hub {hub}`"
    )
    hub: str
    larger: str
    most: str
    tier: str
    units: int


class Tier(StrEnum):
    """Tiers of a hub."""

    F1 = "F1"
    S1 = "S1"
    S2 = "S2"
    S3 = "S3"


class ThrottleClass(StrEnum):
    """Throttled operation classes, by the name shown to users."""

    TELEMETRY = "device messages"
    CONNECTION = "new connections"
    MAIL = "cloud-to-device messages"
    REGISTRY = "registry operations"
    METHOD = "KiB of direct methods"
    TWIN_READ = "twin reads"
    TWIN_UPDATE = "twin updates"
    QUERY = "queries"
    CONFIGURATION = "configuration operations"
    JOB = "job operations"
    JOB_DEVICE = "device operations of jobs"


@dataclass(frozen=True, slots=True)
class TierPace:
    """A rate: an amount per number of seconds."""

    many: float
    within_s: int = 1

    def format(self, subject: str) -> str:
        """Return the rate of a subject, such as `20 queries per minute`."""
        return f"{self.many:,.0f} {subject} per {'minute' if self.within_s == _MINUTE else 'second'}"


@dataclass(frozen=True, slots=True)
class Edition:
    """A tier with its number of units."""

    tier: Tier
    units: int = 1

    def __str__(self) -> str:
        return self.tier if self.units == 1 else f"{self.tier} with {self.units} units"

    @property
    def text(self) -> str:
        """Return the edition as stored text."""
        return f"{self.tier}:{self.units}"

    @property
    def most_messages(self) -> int:
        """Return the daily message quota."""
        return _A_DAY[self.tier] * self.units

    @property
    def meter(self) -> int:
        """Return the billing block size of a message in bytes."""
        return _KIB // 2 if self.tier is Tier.F1 else 4 * _KIB

    @property
    def most_jobs(self) -> int:
        """Return how many scheduled jobs run at a time; others are queued."""
        return _JOBS[self.tier]

    @property
    def most_devices(self) -> int:
        return 500 if self.tier is Tier.F1 else 1_000_000

    def pace(self, throttle_class: ThrottleClass) -> TierPace:
        """Return the rate of a throttle class."""
        least, each, within_s = _PACES[throttle_class][self.tier]
        return TierPace(max(least, each * self.units), within_s)

    def larger(self, grows: Callable[["Edition"], float]) -> "Edition | None":
        """Return the next edition with a larger `grows` value and no smaller limit; None at the top.

        It is a later tier with as many units; for the last tier, one more unit.
        """
        order = tuple(Tier)
        later = [Edition(tier, self.units) for tier in order[order.index(self.tier) + 1 :]]
        if self.tier is order[-1] and self.units < MAX_UNITS:
            later = [Edition(self.tier, self.units + 1)]
        return next((one for one in later if grows(one) > grows(self)), None)

    def blocks(self, size: int) -> int:
        """Return the number of billing blocks of a message size."""
        return max(1, -(-size // self.meter))


# Per tier: minimum, amount per unit, and period in seconds.
_Row = Mapping[Tier, tuple[float, float, int]]
_JOBS: Mapping[Tier, int] = {Tier.F1: 1, Tier.S1: 1, Tier.S2: 5, Tier.S3: 10}
_A_DAY: Mapping[Tier, int] = {Tier.F1: 8_000, Tier.S1: 400_000, Tier.S2: 6_000_000, Tier.S3: 300_000_000}


def _row(s1: tuple[float, float], s2: tuple[float, float], s3: tuple[float, float], within_s: int = 1) -> _Row:
    """Return a row of the limits table; the free tier is as slow as one unit of S1."""
    each = {Tier.F1: s1, Tier.S1: s1, Tier.S2: s2, Tier.S3: s3}
    return {tier: (least, many, within_s) for tier, (least, many) in each.items()}


_PACES: Mapping[ThrottleClass, _Row] = {
    ThrottleClass.TELEMETRY: _row((100, 12), (0, 120), (0, 6_000)),
    ThrottleClass.CONNECTION: _row((100, 12), (0, 120), (0, 6_000)),
    ThrottleClass.MAIL: _row((0, 100), (0, 100), (0, 5_000), _MINUTE),
    ThrottleClass.REGISTRY: _row((0, 100), (0, 100), (0, 5_000), _MINUTE),
    ThrottleClass.METHOD: _row((0, 160), (0, 480), (0, 24 * _KIB)),
    ThrottleClass.TWIN_READ: _row((100, 0), (100, 10), (0, 500)),
    ThrottleClass.TWIN_UPDATE: _row((50, 0), (50, 5), (0, 250)),
    ThrottleClass.QUERY: _row((0, 20), (0, 20), (0, 1_000), _MINUTE),
    ThrottleClass.CONFIGURATION: _row((0, 20), (0, 20), (0, 20), _MINUTE),
    ThrottleClass.JOB: _row((0, 100), (0, 100), (0, 5_000), _MINUTE),
    ThrottleClass.JOB_DEVICE: _row((10, 0), (10, 1), (0, 50)),
}


def parse_edition(tier: str, units: int, hub: str) -> Edition:
    """Return a tier with its units. Raise `TierInvalidError`."""
    if tier not in set(Tier) or not 1 <= units <= (1 if tier == Tier.F1 else MAX_UNITS):
        raise TierInvalidError(tier=tier[:16] if units == 1 else f"{tier[:16]} with {units} units", hub=hub)
    return Edition(Tier(tier), units)


def edition_of(text: str) -> Edition:
    """Parse stored text into an edition."""
    tier, _, units = text.partition(":")
    return Edition(Tier(tier), int(units or 1))


@dataclass(slots=True)
class Allowance:
    """Token bucket of a rate. Time is monotonic seconds."""

    burst: float
    per_s: float
    _left: float = field(init=False)
    _at: float = 0.0

    def __post_init__(self) -> None:
        self._left = self.burst

    def wait_s(self, amount: float, now: float, ahead: float = 0) -> float:
        """Return the wait until an amount is available, behind those `ahead`; consume nothing.

        An amount above the burst size waits until the bucket is full.
        """
        self._left = min(self.burst, self._left + max(0.0, now - self._at) * self.per_s)
        self._at = max(self._at, now)
        return max(0.0, round((ahead + min(amount, self.burst) - self._left) / self.per_s, 6))

    def take(self, amount: float) -> None:
        """Consume an amount that `wait_s` found available."""
        self._left -= amount

    def use_up(self, now: float, for_s: float) -> None:
        """Consume everything, including the refill of this many seconds."""
        self._left, self._at = -self.per_s * for_s, now


@dataclass(slots=True)
class HubThrottle:
    """Remaining limits of a hub's tier for one of several workers."""

    hub: str
    edition: Edition
    parts: int = 1
    _paces: dict[ThrottleClass, Allowance] = field(default_factory=dict)
    _day: date = date.min
    _messages: int = 0

    def take(self, throttle_class: ThrottleClass, now: float, amount: float = 1) -> None:
        """Consume an amount of a throttle class. Raise `TierThrottledError`, which consumes nothing."""
        if (wait_s := self.wait_s(throttle_class, now, amount)) > 0:
            raise self.refused(throttle_class, wait_s)
        self._of(throttle_class).take(amount)

    def wait_s(self, throttle_class: ThrottleClass, now: float, amount: float = 1, ahead: float = 0) -> float:
        """Return the wait for an amount of a throttle class, behind those `ahead`; consume nothing."""
        return self._of(throttle_class).wait_s(amount, now, ahead)

    def count(self, size: int, today: date) -> None:
        """Count a message of this size against the daily quota. Raise `TierQuotaError`."""
        self.count_blocks(self.edition.blocks(size), today)

    def count_blocks(self, blocks: int, today: date) -> None:
        """Count blocks against the daily quota. Raise `TierQuotaError`, which counts nothing."""
        if today != self._day:
            self._day, self._messages = today, 0
        most = self.edition.most_messages
        if self._messages + blocks > most / self.parts:
            known = self.edition
            larger = known.larger(lambda edition: edition.most_messages)
            refused = TierQuotaError(
                hub=self.hub, tier=str(known), most=f"{most:,}", meter=known.meter, **_units_of(larger)
            )
            raise refused if larger else _without(refused, "Wait until the day ends (UTC).")
        self._messages += blocks

    def use_up(self, now: float, for_s: float) -> None:
        """Consume all limits, including the refill of this many seconds."""
        for what in ThrottleClass:
            self._of(what).use_up(now, for_s)

    def use_up_day(self, today: date) -> None:
        """Use up the daily quota."""
        self._day, self._messages = today, math.ceil(self.edition.most_messages / self.parts)

    def room(self, devices: int) -> int:
        """Return how many more devices the hub can have."""
        return max(0, self.edition.most_devices - devices)

    def check_room(self, devices: int) -> None:
        """Raise `TooManyDevicesError` if the hub cannot have another device."""
        known = self.edition
        if not self.room(devices):
            larger = known.larger(lambda edition: edition.most_devices)
            refused = TooManyDevicesError(
                hub=self.hub, most=f"{known.most_devices:,}", tier=str(known), **_units_of(larger)
            )
            raise (
                refused
                if larger
                else _without(refused, "Delete a device: `birthmark hub device ls --hub {}`", self.hub)
            )

    def messages(self, today: date) -> int:
        """Return the messages that this worker counted today."""
        return self._messages if today == self._day else 0

    def _of(self, throttle_class: ThrottleClass) -> Allowance:
        if (known := self._paces.get(throttle_class)) is None:
            pace = self.edition.pace(throttle_class)
            many = pace.many / self.parts
            known = self._paces[throttle_class] = Allowance(max(1.0, many), many / pace.within_s)
        return known

    def refused(self, throttle_class: ThrottleClass, wait_s: float) -> TierThrottledError:
        """Return the refusal of an operation with this wait."""
        known, after_s = self.edition, max(1, math.ceil(wait_s))
        larger = known.larger(lambda edition: edition.pace(throttle_class).many)
        limit, named = known.pace(throttle_class).format(throttle_class), _units_of(larger)
        refused = TierThrottledError(hub=self.hub, limit=limit, tier=str(known), retry_after_s=after_s, **named)
        return refused if larger else _without(refused, "Wait for the time in Retry-After.")


_E = TypeVar("_E", bound=BirthmarkError)


def _units_of(larger: Edition | None) -> dict[str, Any]:
    """Return the error facts of the larger edition that a fix suggests."""
    return {"larger": "", "units": ""} if larger is None else {"larger": larger.tier, "units": larger.units}


def _without(error: _E, fix: str, *words: str) -> _E:
    """Return the error for the largest edition, with its own fix; `words` are its command."""
    error.quote(fix=fix.format(*map(shlex.quote, words)))
    return error
