"""Clock and entropy, the only sources of time and randomness, and a check of the clock's stability.

Tests pass in fakes (tests/fakes.py).
"""

import math
import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return an integer number of microseconds since 1970 UTC."""
    return (moment - EPOCH) // MICROSECOND


def format_utc(moment: datetime) -> str:
    """Format a time in UTC for reports."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


class Clock(Protocol):
    """Wall time and monotonic time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        ...

    def micros(self) -> int:
        """Return the wall time in integer microseconds since 1970, as the database stores it."""
        ...

    def monotonic(self) -> float:
        """Return seconds since a fixed moment; the value never decreases."""
        ...


class Entropy(Protocol):
    """Unpredictable values."""

    def token(self, n: int) -> bytes:
        """Return `n` unpredictable bytes."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def micros(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


STEADY_S = 600.0
"""Seconds without a jump after which the clock counts as reliable."""
_TOLERANCE_S = 60.0
_MICROS = 1_000_000


class ClockStability:
    """Whether the wall clock is reliable enough to delete data by it.

    A machine without a clock battery starts with a clock that is off by years, and an administrator may set a wrong
    time. Both are corrected some minutes later. The clock is checked at creation and at each call.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = math.inf
        self._from = 0.0
        self.is_steady()

    def is_steady(self) -> bool:
        """Return whether the clock has run without a jump for `STEADY_S`."""
        monotonic = self._clock.monotonic()
        offset = self._clock.now().timestamp() - monotonic
        if abs(offset - self._offset) > _TOLERANCE_S:
            self._offset, self._from = offset, monotonic
        return monotonic - self._from >= STEADY_S

    def since(self) -> int:
        """Return the earliest start time for expiry checks, in microseconds since 1970; 0 for a stable clock.

        What started after the clock's last jump has lasted as long as the clock shows.
        """
        return 0 if self.is_steady() else int((self._from + self._offset - _TOLERANCE_S) * _MICROS)


class SystemEntropy:
    """The operating system's random source."""

    def token(self, n: int) -> bytes:
        return secrets.token_bytes(n)


def new_uuid(entropy: Entropy) -> str:
    """Return a random UUID (RFC 9562 version 4) in its usual text form."""
    return str(uuid.UUID(bytes=entropy.token(16), version=4))
