"""Who lives: a worker writes a beat now and then, and is dead when nobody saw it change for a lease.

Only own monotonic clocks are compared with each other, so clocks of machines need not agree. A worker's own lease runs
from before it wrote its beat, so it ends before anybody else can see it end.
"""

from collections.abc import Mapping

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


class Beats:
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
