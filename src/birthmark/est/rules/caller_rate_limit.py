"""Rate limits per caller."""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import ceil

from birthmark.errors import ThrottledError
from birthmark.rate_limits import RateLimits

_EARLY_S = 1.0
_URGENT_SHARE = 4


class EstBusyError(ThrottledError):
    """Too many requests."""

    code = "est.busy"
    message = "Too many requests. Retry in {wait_s} s"
    cause = "The requests exceeded the limit of {per_s} certificates per second; '{device_id}' can retry in {wait_s} s."
    fix = (
        "Wait {wait_s} s, as Retry-After specifies. To raise the limit, increase `est.renewals_per_s` in the "
        "server's configuration."
    )
    device_id: str
    per_s: float
    wait_s: int


@dataclass(slots=True)
class CallerRateLimit:
    """Queue with `per_s` turns per second, and a burst of `burst_s` seconds' worth. Times are monotonic seconds."""

    per_s: float = 400.0
    burst_s: float = 2.0
    max_waiting: int = 262_144
    """Maximum number of stored turns; above it, a caller gets a new turn from the same queue at each retry."""
    _next: float = field(default=0.0, init=False)
    _next_urgent: float = field(default=0.0, init=False)
    _turns: OrderedDict[str, float] = field(default_factory=OrderedDict, init=False, repr=False)

    def take(self, name: str, now: float, ends_in_s: float | None = None) -> None:
        """Take a turn for `name`, or raise `EstBusyError`.

        `ends_in_s` is the remaining lifetime of its certificate, if any. A caller whose certificate would expire before
        its turn takes precedence, up to a quarter of the rate.
        """
        turn = self._turns.get(name)
        if turn is None:
            self._next = max(self._next, now)
            turn, self._next = self._next, self._next + 1 / self.per_s
            if turn <= now + self.burst_s:
                return
        elif turn <= now + _EARLY_S:
            del self._turns[name]
            return
        if ends_in_s is not None and now + ends_in_s < turn and self._is_let_first(now):
            self._turns.pop(name, None)
            return
        self._remember(name, turn, now)
        wait = max(1, ceil(turn - now))
        raise EstBusyError(retry_after_s=wait, wait_s=wait, device_id=name, per_s=self.per_s)

    def _is_let_first(self, now: float) -> bool:
        self._next_urgent = max(self._next_urgent, now)
        if self._next_urgent > now + self.burst_s:
            return False
        self._next_urgent += _URGENT_SHARE / self.per_s
        return True

    def _remember(self, name: str, turn: float, now: float) -> None:
        """Store the turn; turns that passed long ago belong to devices that did not retry."""
        while self._turns and (oldest := next(iter(self._turns.items())))[1] < now - 3600:
            del self._turns[oldest[0]]
        if name in self._turns or len(self._turns) < self.max_waiting:
            self._turns[name] = turn


class EstThrottledError(ThrottledError):
    """Too many requests."""

    code = "est.throttled"
    cause = "{who} sent more than {burst} requests in succession, more often than one every {every_s} s."
    fix = "Wait {wait_s} s, as Retry-After specifies. Check whether the device can store its certificate."
    burst: int
    every_s: float
    wait_s: int
    who: str


@dataclass(slots=True)
class Limiter:
    """Rate limiter with `burst` at once, then one per `every_s` seconds."""

    burst: int
    every_s: float
    max_callers: int = 16384
    _limits: RateLimits = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._limits = RateLimits(self.burst, 1 / self.every_s, self.max_callers)

    def check(self, client: str, now: float) -> None:
        """Raise `EstThrottledError` if the client has no tokens left; take none. `now` is monotonic seconds."""
        if (left := self._limits.left(client, now)) < 1:
            wait = max(1, ceil((1 - left) * self.every_s))
            raise EstThrottledError(retry_after_s=wait, wait_s=wait, who=client, burst=self.burst, every_s=self.every_s)

    def used(self, client: str, now: float) -> int:
        """Return the number of tokens that the client took recently, rounded up."""
        return ceil(self.burst - self._limits.left(client, now))

    def take(self, client: str, now: float) -> None:
        """Take a token, or raise `EstThrottledError`."""
        self.check(client, now)
        self._limits.has_room(client, now)
