"""How long things took, in little memory: buckets that grow by a tenth, and a percentile is right within that."""

import math
from dataclasses import dataclass, field

_GROWTH = math.log(1.1)
_LEAST_S = 1e-5


@dataclass(slots=True)
class Latencies:
    """Seconds, counted."""

    count: int = 0
    most_s: float = 0.0
    _buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.most_s = max(self.most_s, seconds)
        place = math.ceil(math.log(max(seconds, _LEAST_S) / _LEAST_S) / _GROWTH)
        self._buckets[place] = self._buckets.get(place, 0) + 1

    def at(self, share: float) -> float:
        """Return the seconds within which that share of them was done; 0 when there were none."""
        left = math.ceil(self.count * share)
        for place in sorted(self._buckets):
            left -= self._buckets[place]
            if left <= 0:
                return min(self.most_s, _LEAST_S * math.exp(place * _GROWTH))
        return self.most_s
