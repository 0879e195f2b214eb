"""Fakes at our ports: a clock that stands still until moved, entropy from a seed."""

import hashlib
from datetime import UTC, datetime, timedelta

from birthmark.clock_and_entropy import to_micros

NOON = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    def __init__(self, now: datetime = NOON) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def micros(self) -> int:
        return to_micros(self._now)

    def monotonic(self) -> float:
        return self._monotonic

    def move(self, by: timedelta) -> None:
        self._now += by
        self._monotonic += by.total_seconds()

    def jump(self, by: timedelta) -> None:
        """Set the wall clock, as an administrator or NTP does."""
        self._now += by


class SeededEntropy:
    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._count = 0

    def token(self, n: int) -> bytes:
        out = b""
        while len(out) < n:
            self._count += 1
            out += hashlib.sha256(f"{self._seed}:{self._count}".encode()).digest()
        return out[:n]
