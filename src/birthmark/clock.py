"""Clock and Entropy: the only ways to ask for time and chance. Tests hand in fakes (tests/fakes.py).

And whether a clock may be believed.
"""

import math
import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return whole microseconds since 1970 UTC."""
    return (moment - EPOCH) // MICROSECOND


def format_utc(moment: datetime) -> str:
    """Return a moment as reports show it."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


class Clock(Protocol):
    """Wall time and monotonic time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        ...

    def micros(self) -> int:
        """Return the wall time in whole microseconds since 1970, as the database keeps it."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
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
"""How long a clock has to go on as it is until it is believed."""
_TOLERANCE_S = 60.0
_MICROS = 1_000_000


class ClockStability:
    """Whether the wall clock may be believed where something is deleted by it.

    A machine without a battery starts with a clock that is off by years, and an administrator may set one wrongly: both
    are put right some minutes later. The clock is looked at whenever somebody asks, and now.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = math.inf
        self._from = 0.0
        self.is_steady()

    def is_steady(self) -> bool:
        """Say whether the clock goes on undisturbed for `STEADY_S` already."""
        monotonic = self._clock.monotonic()
        offset = self._clock.now().timestamp() - monotonic
        if abs(offset - self._offset) > _TOLERANCE_S:
            self._offset, self._from = offset, monotonic
        return monotonic - self._from >= STEADY_S

    def since(self) -> int:
        """Return from when on what began may be over by now, in microseconds since 1970: 0 by a steady clock.

        What began since the clock goes on undisturbed has lasted as long as the clock says.
        """
        return 0 if self.is_steady() else int((self._from + self._offset - _TOLERANCE_S) * _MICROS)


class SystemEntropy:
    """The operating system's random source."""

    def token(self, n: int) -> bytes:
        return secrets.token_bytes(n)


def new_uuid(entropy: Entropy) -> str:
    """Return a random UUID (RFC 9562 version 4) in its usual text form."""
    return str(uuid.UUID(bytes=entropy.token(16), version=4))
