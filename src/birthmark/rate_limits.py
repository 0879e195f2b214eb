"""Rate limits: a token bucket per caller in bounded memory; the least recently used are dropped."""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class RateLimits:
    """Token buckets by address: `burst` at once, then `per_s` per second."""

    burst: float = 2000
    per_s: float = 5
    max_addresses: int = 4096
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)

    def left(self, address: str, now: float) -> float:
        """Return the tokens left for `address` without taking any.

        The value is rounded, so that waiting the indicated time is sufficient.
        """
        left, then = self._left.get(address, (self.burst, now))
        return min(self.burst, round(left + (now - then) * self.per_s, 9))

    def has_room(self, address: str, now: float) -> bool:
        """Take one token of `address` if available; return whether it was. `now` is monotonic seconds."""
        left = self.left(address, now)
        has_room = left >= 1
        self._left[address] = (left - has_room, now)
        self._left.move_to_end(address)
        if len(self._left) > self.max_addresses:
            self._left.popitem(last=False)
        return has_room

    def use_up(self, address: str, now: float, for_s: float) -> None:
        """Take all tokens of `address`, and those of the next `for_s` seconds."""
        self._left[address] = (-self.per_s * for_s, now)
