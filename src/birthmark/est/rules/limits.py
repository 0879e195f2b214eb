"""How often may one caller ask?"""

from dataclasses import dataclass, field
from math import ceil

from birthmark.errors import ThrottledError
from birthmark.refusals.rate_limits import RateLimits


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
    _limits: RateLimits = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._limits = RateLimits(self.burst, 1 / self.every_s, self.max_callers)

    def check(self, who: str, now: float) -> None:
        """Raise `EstThrottledError` when `who` has nothing left; take nothing. `now` is monotonic seconds."""
        if (left := self._limits.left(who, now)) < 1:
            wait = max(1, ceil((1 - left) * self.every_s))
            raise EstThrottledError(retry_after_s=wait, wait_s=wait, who=who, burst=self.burst, every_s=self.every_s)

    def used(self, who: str, now: float) -> int:
        """Return how many `who` took lately, rounded up."""
        return ceil(self.burst - self._limits.left(who, now))

    def take(self, who: str, now: float) -> None:
        """Take one, or raise `EstThrottledError`."""
        self.check(who, now)
        self._limits.has_room(who, now)
