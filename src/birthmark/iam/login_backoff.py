"""How long whoever guessed waits: some tries are free, then each pause is twice the one before. In bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass, field

_FORGET_S = 3600.0
_MOST_DOUBLINGS = 20


@dataclass(slots=True)
class Pauses:
    """Wrong tries by whose they are; `now` is monotonic seconds."""

    free: int
    """So many follow each other at once."""
    first_s: float = 1.0
    longest_s: float = 900.0
    most: int = 16384
    """So many are known; the least recent are forgotten."""
    _tries: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict, init=False, repr=False)

    def tries(self, who: str, now: float) -> int:
        """Return how often somebody was wrong lately."""
        count, last = self._tries.get(who, (0, now))
        return count if now - last < _FORGET_S + self._pause_s(count) else 0

    def wait_s(self, who: str, now: float) -> float:
        """Return how long that one has to wait."""
        count = self.tries(who, now)
        return max(0.0, self._tries[who][1] + self._pause_s(count) - now) if count else 0.0

    def failed(self, who: str, now: float) -> int:
        """Note that one was wrong, and return how often that was."""
        count = self.tries(who, now) + 1
        self._tries[who] = (count, now)
        self._tries.move_to_end(who)
        if len(self._tries) > self.most:
            self._tries.popitem(last=False)
        return count

    def passed(self, who: str) -> None:
        """Forget the wrong tries of one that was right."""
        self._tries.pop(who, None)

    def _pause_s(self, count: int) -> float:
        if count < self.free:
            return 0.0
        return min(self.first_s * 2.0 ** min(count - self.free, _MOST_DOUBLINGS), self.longest_s)
