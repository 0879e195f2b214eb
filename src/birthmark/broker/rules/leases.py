"""Who lives: a worker writes a beat now and then, and is dead when nobody saw it change for a lease.

Only own monotonic clocks are compared with each other, so clocks of machines need not agree. A worker's own lease runs
from before it wrote its beat, so it ends before anybody else can see it end.
"""

from collections.abc import Iterable, Mapping

BEAT_S = 0.25
LEASE_S = 1.0
CLOSE_S = 5.0
"""After so long without a beat a worker closes its connections before it reads more."""


class Lease:
    """This worker's own."""

    __slots__ = ("_renewed_at",)

    def __init__(self, now: float) -> None:
        self._renewed_at = now

    def renewed(self, began_at: float) -> None:
        """Note that a beat was written that was begun at this time."""
        self._renewed_at = max(self._renewed_at, began_at)

    def is_fresh(self, now: float) -> bool:
        """Say whether nobody can have taken anything of this worker's."""
        return now - self._renewed_at < LEASE_S


class HeartbeatTracker:
    """What was seen of the others' beats."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def saw(self, beats: Mapping[str, int], now: float) -> list[str]:
        """Note every worker's beat as it was read at `now`; return those whose lease has run out."""
        for worker in self._seen.keys() - beats.keys():
            del self._seen[worker]
        return [worker for worker, beat in beats.items() if self.is_over(worker, beat, now)]

    def is_over(self, worker: str, beat: int, now: float) -> bool:
        """Note one worker's beat, whatever the others do; say whether its lease has run out."""
        if worker not in self._seen or self._seen[worker][0] != beat:
            self._seen[worker] = beat, now
        return now - self._seen[worker][1] >= LEASE_S


class TakeoverSchedule:
    """What dead workers left: one of those that live frees it, and the next ones only where that has not.

    All at once would decide on the same rows, so that most of what each writes is refused.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def note(self, workers: Iterable[str], now: float) -> None:
        """Note workers that are dead, and of which there is something."""
        for worker in workers:
            self._seen.setdefault(worker, now)

    def due(self, rank: int, now: float) -> list[str]:
        """Return those that are to be freed by the worker before whom so many others have their turn."""
        return [worker for worker, since in self._seen.items() if now - since >= rank * LEASE_S]

    def forget(self, worker: str) -> None:
        """Note that it is freed; what is seen of it again counts anew."""
        del self._seen[worker]
