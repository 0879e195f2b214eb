"""How often may one ask? A token bucket for each caller, in bounded memory: the least recent are forgotten."""

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class RateLimits:
    """`burst` rows at once for an address, then `per_s` a second."""

    burst: float = 2000
    per_s: float = 5
    max_addresses: int = 4096
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)

    def left(self, address: str, now: float) -> float:
        """Return what `address` has left; take nothing. Rounded: whoever waits as long as told is let through."""
        left, then = self._left.get(address, (self.burst, now))
        return min(self.burst, round(left + (now - then) * self.per_s, 9))

    def has_room(self, address: str, now: float) -> bool:
        """Take one row's room for `address`, if there is. `now` is monotonic seconds."""
        left = self.left(address, now)
        has_room = left >= 1
        self._left[address] = (left - has_room, now)
        self._left.move_to_end(address)
        if len(self._left) > self.max_addresses:
            self._left.popitem(last=False)
        return has_room

    def use_up(self, address: str, now: float, for_s: float) -> None:
        """Take all that `address` has left, and what comes within so many seconds."""
        self._left[address] = (-self.per_s * for_s, now)
