"""How often a stranger makes this server sign: what cannot be kept is signed for each who asks, so it is rationed."""

from birthmark.clock import Clock
from birthmark.net.share import share_of
from birthmark.refusals.rate_limits import RateLimits

EACH = (200, 20)
ALL = (2000, 500)


class SigningShare:
    """At once, and then a second: for one address, and for all together, of `workers` that have a share each."""

    def __init__(self, clock: Clock, workers: int = 1) -> None:
        self._clock = clock
        self._each = RateLimits(*EACH)
        burst, per_s = ALL
        self._all = RateLimits(burst / workers, per_s / workers)

    def __call__(self, address: str) -> bool:
        """Take one signature's worth of the share of `address`, if there is."""
        now = self._clock.monotonic()
        return self._each.has_room(share_of(address), now) and self._all.has_room("", now)
