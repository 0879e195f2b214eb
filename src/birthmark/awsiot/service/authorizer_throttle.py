"""Rate limits of denied authorizer calls: per address, and per authorizer over all addresses.

Only denied calls count, so a fleet behind one address connects without limit. While an authorizer is throttled,
recently authorized addresses are still served.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from birthmark.clock_and_entropy import Clock
from birthmark.errors import ThrottledError
from birthmark.net.quota_key import share_of

OF_ADDRESS, OF_ADDRESS_A_SECOND = 20, 0.5
OF_AUTHORIZER, OF_AUTHORIZER_A_SECOND = 200, 10.0
_MOST_KNOWN = 4096


class AuthorizerThrottledError(ThrottledError):
    """The authorizer denied too many clients."""

    code = "awsiot.authorizer_throttled"
    message = "Too many denied attempts"
    cause = "The authorizer {authorizer} denied too many clients from {whose}."
    fix = (
        "Retry after the time in Retry-After. Check which clients fail and why: `birthmark why --reasons`. An "
        "authorizer with token signing calls its function only for valid signatures."
    )
    authorizer: str
    retry_after_s: int = 2
    whose: str


class _Buckets:
    """Token buckets; those unused the longest are full again and are dropped."""

    def __init__(self, limit: float, a_second: float) -> None:
        self._most, self._a_second = limit, a_second
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, name: str, now: float) -> float:
        left, at = self._left.get(name, (self._most, now))
        return min(self._most, left + (now - at) * self._a_second)

    def take(self, name: str, now: float, count: float) -> None:
        self._left[name] = min(self._most, self.left(name, now) - count), now
        self._left.move_to_end(name)
        while len(self._left) > _MOST_KNOWN:
            self._left.popitem(last=False)


@dataclass(slots=True)
class AuthorizerThrottle:
    """Limits the attempts of denied clients."""

    clock: Clock = field(repr=False)
    _addresses: _Buckets = field(default_factory=lambda: _Buckets(OF_ADDRESS, OF_ADDRESS_A_SECOND))
    _authorizers: _Buckets = field(default_factory=lambda: _Buckets(OF_AUTHORIZER, OF_AUTHORIZER_A_SECOND))
    _welcome: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    def begin(self, authorizer: str, address: str) -> None:
        """Count an attempt of an address, including concurrent ones. Raise `AuthorizerThrottledError`."""
        now, share = self.clock.monotonic(), share_of(address)
        if self._addresses.left(f"{authorizer} {share}", now) < 1:
            raise AuthorizerThrottledError(authorizer=authorizer, whose=share or "one address")
        if (authorizer, share) not in self._welcome and self._authorizers.left(authorizer, now) < 1:
            raise AuthorizerThrottledError(authorizer=authorizer, whose="all addresses")
        self._addresses.take(f"{authorizer} {share}", now, 1)
        self._authorizers.take(authorizer, now, 1)

    def refund_attempt(self, authorizer: str, address: str) -> None:
        """Refund an attempt without a function call."""
        now, share = self.clock.monotonic(), share_of(address)
        self._addresses.take(f"{authorizer} {share}", now, -1)
        self._authorizers.take(authorizer, now, -1)

    def record_success(self, authorizer: str, address: str) -> None:
        """Refund the attempt of an authorized client and exempt its address while the authorizer is throttled."""
        self.refund_attempt(authorizer, address)
        share = share_of(address)
        self._welcome[authorizer, share] = None
        self._welcome.move_to_end((authorizer, share))
        while len(self._welcome) > _MOST_KNOWN:
            self._welcome.popitem(last=False)
