"""How often may one caller ask? A token bucket for each, in bounded memory; the least recent are forgotten."""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import ceil

from birthmark.errors import ThrottledError


class EstThrottledError(ThrottledError):
    """Too many requests."""

    code = "est.throttled"
    cause = "{who} asked more than {burst} times in a row, faster than one in {every_s} s."
    fix = "Wait {wait_s} s, as Retry-After says. A device that asks so often probably cannot store its certificate."
    burst: int
    every_s: float
    wait_s: int
    who: str


@dataclass(slots=True)
class Limiter:
    """`burst` at once, then one each `every_s` seconds."""

    burst: int
    every_s: float
    max_callers: int = 16384
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)

    def check(self, who: str, now: float) -> None:
        """Raise `EstThrottledError` when `who` has nothing left; take nothing. `now` is monotonic seconds."""
        left = self._left(who, now)
        if left < 1:
            wait = max(1, ceil((1 - left) * self.every_s))
            raise EstThrottledError(retry_after_s=wait, wait_s=wait, who=who, burst=self.burst, every_s=self.every_s)

    def take(self, who: str, now: float) -> None:
        """Take one, or raise `EstThrottledError`."""
        self.check(who, now)
        self._buckets[who] = (self._left(who, now) - 1, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > self.max_callers:
            self._buckets.popitem(last=False)

    def _left(self, who: str, now: float) -> float:
        left, then = self._buckets.get(who, (float(self.burst), now))
        return min(float(self.burst), left + (now - then) / self.every_s)
