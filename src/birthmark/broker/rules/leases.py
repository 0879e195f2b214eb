"""Worker leases: a worker writes heartbeats, and is dead if none is observed for the lease duration.

Each worker compares only its own monotonic clock readings, so the clocks of the machines need not agree. A worker's own
lease starts before it writes its heartbeat, so it ends before other workers can observe its end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BEAT_S = 0.25
LEASE_S = 1.0
CUT_OFF_S = 5.0
"""Seconds after which a worker without a lease ends, if another worker has a valid lease all the time."""


class Lease:
    """Lease of this worker."""

    __slots__ = ("_renewed_at",)

    def __init__(self, now: float) -> None:
        self._renewed_at = now

    def renewed(self, began_at: float) -> None:
        """Record a heartbeat that was started at this time."""
        self._renewed_at = max(self._renewed_at, began_at)

    def is_fresh(self, now: float) -> bool:
        """Return whether no other worker can have taken over this worker's sessions."""
        return now - self._renewed_at < LEASE_S


@dataclass(slots=True)
class _Silence:
    """The last heartbeat of a worker, and for how long it has not changed."""

    beat: int
    looked_at: float
    silent_s: float = 0.0


class HeartbeatTracker:
    """Observed heartbeats of the other workers.

    Time between two reads counts up to `BEAT_S`: while this worker could not read, others may have been unable to
    write.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, _Silence] = {}

    def record_heartbeats(self, beats: Mapping[str, int], now: float) -> list[str]:
        """Record the heartbeats read at `now`; return the workers whose lease has expired."""
        for worker in self._seen.keys() - beats.keys():
            del self._seen[worker]
        return [worker for worker, beat in beats.items() if self.is_over(worker, beat, now)]

    def is_over(self, worker: str, beat: int, now: float) -> bool:
        """Record a worker's heartbeat; return whether its lease has expired."""
        known = self._seen.get(worker)
        if known is None or known.beat != beat:
            known = self._seen[worker] = _Silence(beat, now)
        known.silent_s += min(now - known.looked_at, BEAT_S)
        known.looked_at = now
        return known.silent_s >= LEASE_S

    def restart(self) -> None:
        """Give every worker a full lease again, because a read failed."""
        self._seen.clear()


class TakeoverSchedule:
    """Takeover of dead workers' sessions: one live worker frees them, and the next ones only if it does not.

    If all workers ran at once, they would write the same rows, and most writes would be rejected.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def note(self, workers: Iterable[str], now: float) -> None:
        """Record dead workers with sessions to free."""
        for worker in workers:
            self._seen.setdefault(worker, now)

    def due(self, rank: int, now: float) -> list[str]:
        """Return the dead workers to free by the live worker with this rank."""
        return [worker for worker, since in self._seen.items() if now - since >= rank * LEASE_S]

    def forget(self, worker: str) -> None:
        """Remove a freed worker; its next observation starts a new schedule."""
        del self._seen[worker]
