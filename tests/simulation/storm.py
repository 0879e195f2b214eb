"""Renewals of a fleet in virtual time: the agent's own pauses against the server's own pace.

Each device is a few numbers; what decides is the code that runs on devices (`agent.renewal_policy`) and on the server
(`est.rules.pace`). What is measured is what the server sees: connections and certificates by the minute.
"""

import argparse
import heapq
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta

from birthmark.agent.renewal_policy import overdue_pause, pause_as_asked, retry_pause
from birthmark.est.rules.caller_rate_limit import CallerRateLimit, EstBusyError

_MINUTE = 60.0
_PARTS = 50


@dataclass(frozen=True, slots=True)
class Storm:
    """What happens: all certificates end at the same moment, and the server is away for a while before that."""

    devices: int = 100_000
    lifetime: timedelta = timedelta(days=30)
    outage: timedelta = timedelta(hours=6)
    per_s: float = 400.0
    seed: int = 7
    window: tuple[float, float] = (0.6, 0.8)
    """When devices were told to renew, as parts of the lifetime; alike, and all begin at one moment."""
    retry_percent: int = 4
    begins: float = 0.7
    """When the outage begins, as a part of the lifetime."""
    all_boot: bool = False
    """Whether every device starts at the moment the server is back, as after a power cut, and finds itself late."""


@dataclass(slots=True)
class Outcome:
    """What the server saw after it came back, by the minute."""

    issued: Counter[int] = field(default_factory=Counter)
    connections: Counter[int] = field(default_factory=Counter)
    expired: int = 0
    longest_wait_s: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return counts, and for issues and connections the busiest minute beside the mean."""
        row: dict[str, float] = {"issued": self.issued.total(), "expired": self.expired}
        for name, counted in (("issued", self.issued), ("connections", self.connections)):
            first, minutes = min(counted), max(counted) - min(counted) + 1
            step = max(1, minutes // _PARTS)  # as many as make a mean worth comparing with
            parts: Counter[int] = Counter()
            for minute, count in counted.items():
                parts[(minute - first) // step] += count
            mean, peak = counted.total() / minutes / _MINUTE, max(parts.values()) / step / _MINUTE
            row |= {
                f"{name}_mean_s": round(mean, 2),
                f"{name}_peak_s": round(peak, 2),
                f"{name}_peak_to_mean": round(peak / mean, 2),
                f"{name}_minutes": minutes,
            }
        return row | {"longest_wait_s": round(self.longest_wait_s)}


def run(storm: Storm) -> Outcome:
    """Play it; times are seconds since the certificates were issued."""
    dice, pace, outcome = random.Random(storm.seed), CallerRateLimit(storm.per_s), Outcome()
    life = storm.lifetime.total_seconds()
    retry = storm.lifetime * storm.retry_percent / 100
    away_from = life * storm.begins
    back_at = away_from + storm.outage.total_seconds()
    earliest, latest = (part * life for part in storm.window)

    def begin() -> float:
        if storm.all_boot:
            return back_at + overdue_pause(timedelta(seconds=life - back_at), retry, dice.random()).total_seconds()
        return earliest + dice.random() * (latest - earliest)

    queue = [(begin(), n, 0) for n in range(storm.devices)]
    heapq.heapify(queue)
    first: dict[int, float] = {}
    while queue:
        now, n, failures = heapq.heappop(queue)
        if away_from <= now < back_at:
            first.setdefault(n, now)
            pause = retry_pause(failures + 1, retry, dice.random()).total_seconds()
            heapq.heappush(queue, (now + pause, n, failures + 1))
            continue
        minute = int(now / _MINUTE)
        outcome.connections[minute] += 1
        try:
            pace.take(str(n), now, life - now)
        except EstBusyError as busy:
            first.setdefault(n, now)
            pause = pause_as_asked(busy.retry_after_s, dice.random()).total_seconds()
            heapq.heappush(queue, (now + pause, n, failures))
            continue
        outcome.issued[minute] += 1
        outcome.expired += now > life
        if n in first:
            outcome.longest_wait_s = max(outcome.longest_wait_s, now - max(first[n], back_at))
    return outcome


def storms(storm: Storm) -> dict[str, Storm]:
    """Return the same fleet in different weather."""
    return {
        "told when to renew, the server away for a while": storm,
        "all due at the moment the server goes away": replace(storm, window=(storm.begins, storm.begins)),
        "all start at the moment the server is back, and are late": replace(storm, all_boot=True),
    }


def main() -> None:
    """Play a storm, and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--outage-hours", type=float, default=6)
    parser.add_argument("--per-s", type=float, default=400)
    given = parser.parse_args()
    alike = Storm(given.devices, outage=timedelta(hours=given.outage_hours), per_s=given.per_s)
    for title, storm in storms(alike).items():
        sys.stdout.write(json.dumps({"storm": title, **run(storm).figures()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
