"""Exponential backoff of failed sign-ins: some attempts are free, then each pause doubles. Bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass, field

_FORGET_S = 3600.0
_MOST_DOUBLINGS = 20


@dataclass(slots=True)
class Pauses:
    """Failed attempts by key; `now` is monotonic seconds."""

    free: int
    """Number of consecutive failures without a pause."""
    first_s: float = 1.0
    longest_s: float = 900.0
    most: int = 16384
    """Maximum number of tracked keys; the least recently used are evicted."""
    _tries: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict, init=False, repr=False)

    def tries(self, key: str, now: float) -> int:
        """Return the number of recent failures."""
        count, last = self._tries.get(key, (0, now))
        return count if now - last < _FORGET_S + self._pause_s(count) else 0

    def wait_s(self, key: str, now: float) -> float:
        """Return the remaining pause in seconds."""
        count = self.tries(key, now)
        return max(0.0, self._tries[key][1] + self._pause_s(count) - now) if count else 0.0

    def failed(self, key: str, now: float) -> int:
        """Record a failure and return the count of recent failures."""
        count = self.tries(key, now) + 1
        self._tries[key] = (count, now)
        self._tries.move_to_end(key)
        if len(self._tries) > self.most:
            self._tries.popitem(last=False)
        return count

    def passed(self, key: str) -> None:
        """Clear the failures after a success."""
        self._tries.pop(key, None)

    def _pause_s(self, count: int) -> float:
        if count < self.free:
            return 0.0
        return min(self.first_s * 2.0 ** min(count - self.free, _MOST_DOUBLINGS), self.longest_s)
