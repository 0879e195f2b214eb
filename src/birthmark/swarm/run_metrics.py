"""Counters of a run: states, totals, latencies, errors, and a timeline with one point per tick."""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from birthmark.errors import BirthmarkError
from birthmark.swarm.model import DeviceMetrics, SwarmState

_GROWTH = math.log(1.1)
_LEAST_S = 1e-5


@dataclass(slots=True)
class Latencies:
    """Counted latencies in seconds."""

    count: int = 0
    most_s: float = 0.0
    _buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Add a sample."""
        self.count += 1
        self.most_s = max(self.most_s, seconds)
        place = math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S) / _GROWTH)
        self._buckets[place] = self._buckets.get(place, 0) + 1

    def at(self, share: float) -> float:
        """Return the latency in seconds at this quantile; 0 without samples."""
        left = math.ceil(self.count * share)
        for place in sorted(self._buckets):
            left -= self._buckets[place]
            if left <= 0:
                return min(self.most_s, _LEAST_S * math.exp(place * _GROWTH))
        return self.most_s


MAX_POINTS = 600
"""Maximum number of points of the timeline; a longer run has larger intervals."""
_MAX_EVENTS = 12
_MISSING = frozenset({SwarmState.AWAY, SwarmState.REFUSED, SwarmState.REGISTERING, SwarmState.ASSIGNED})
_STANDING = (SwarmState.CONNECTED, SwarmState.SENDING, SwarmState.RENEWING)


@dataclass(slots=True)
class RunMetrics:
    """Metrics of the run; each device has its `DeviceMetrics`."""

    states: Counter[SwarmState] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    causes: dict[str, str] = field(default_factory=dict)
    """Cause of the first error, by error code."""
    latencies: dict[str, Latencies] = field(default_factory=dict)
    timeline: list[dict[str, float]] = field(default_factory=list)
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_EVENTS))
    _spacing_s: float = 1.0
    _before: tuple[float, Counter[str]] = (0.0, Counter())

    def enter(self, tally: DeviceMetrics, state: SwarmState, now: float, *, is_planned: bool = False) -> None:
        """Record a new state of a device; while it reconnects, its absence counts from the lost connection."""
        if not (tally.state in _MISSING and state in _MISSING) or tally.is_planned:
            tally.since_s = now
        tally.is_planned = is_planned
        self.states[tally.state] -= 1
        self.states[state] += 1
        tally.state = state

    def record_latency(self, operation: str, seconds: float) -> None:
        """Record the duration of an operation."""
        self.latencies.setdefault(operation, Latencies()).add(seconds)
        self.totals[operation] += 1

    def record_error(self, tally: DeviceMetrics, error: BirthmarkError) -> None:
        """Record an error of a well-behaved device."""
        tally.errors += 1
        tally.last_error = error.code
        self.errors[error.code] += 1
        if error.code not in self.causes:
            self.causes[error.code] = error.explain_cause()
            self.latest.append(f"{tally.name}: {self.causes[error.code]}")

    @property
    def standing(self) -> int:
        """Number of connected devices."""
        return sum(self.states[state] for state in _STANDING)

    def tick(self, now: float) -> Mapping[str, float]:
        """Add a point to the timeline and return it; a long timeline drops every second point."""
        since, before = self._before
        spent = max(now - since, 1e-9)
        point = {
            "s": round(now, 2),
            "connected": float(self.standing),
            "away": float(self.states[SwarmState.AWAY] + self.states[SwarmState.REFUSED]),
            "acknowledged_per_s": round((self.totals["publish"] - before["publish"]) / spent, 2),
            "connects_per_s": round((self.totals["connect"] - before["connect"]) / spent, 2),
            "errors_per_s": round((self.totals["errors"] - before["errors"]) / spent, 2),
        }
        self._before = now, self.totals.copy()
        if not self.timeline or now - self.timeline[-1]["s"] >= self._spacing_s * 0.9:
            self.timeline.append(point)
        if len(self.timeline) > MAX_POINTS:
            del self.timeline[1::2]
            self._spacing_s *= 2
        return point

    def spread(self) -> dict[str, dict[str, Any]]:
        """Return the latencies as rows: counts and milliseconds."""
        return {
            what: {
                "count": took.count,
                "p50_ms": round(took.at(0.5) * 1000, 1),
                "p99_ms": round(took.at(0.99) * 1000, 1),
                "max_ms": round(took.most_s * 1000, 1),
            }
            for what, took in self.latencies.items()
        }
