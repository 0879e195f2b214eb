"""Quota for unauthenticated clients: a total limit and a limit per address.

If an address exceeds its limit, its oldest holder is evicted, provided it has had `grace_s`; served clients need only
milliseconds. Otherwise the new holder is evicted, or a burst of clients would only evict each other. Where each client
sends one request and is answered at once, no grace is better: a holder then cannot block others.

If the total limit is exceeded, the address that holds the most is evicted, regardless of its own limit. Addresses that
fill the quota together therefore cannot block small holders. Addresses that hold at least half of the largest amount
count as equal and are evicted in turn.

The owner defines what is counted, connections or bytes. This module only selects the holder to evict.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

GRACE_S = 2.0

Holder = TypeVar("Holder")


@dataclass(slots=True)
class _Share:
    since: float
    address: str
    size: int = 0


@dataclass(slots=True)
class UnauthenticatedQuota(Generic[Holder]):
    """Holders by address.

    `evict` receives the holder, the exceeded limit and its address, and must cause `release`.
    """

    total: int
    per_address: int
    evict: Callable[[Holder, int, str], None] = field(repr=False)
    grace_s: float = GRACE_S
    _held: dict[Holder, _Share] = field(default_factory=dict, init=False, repr=False)
    _of: dict[str, dict[Holder, None]] = field(default_factory=dict, init=False, repr=False)
    _sums: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _by_size: defaultdict[int, dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict), init=False, repr=False
    )
    """Addresses by the bit length of their size."""
    used: int = field(default=0, init=False)

    def take(self, holder: Holder, address: str, size: int, now: float) -> None:
        """Add `size` to `holder`; evict a holder if a limit is exceeded. `now` is monotonic seconds."""
        share = self._held.get(holder)
        if share is None:
            share = self._held[holder] = _Share(now, address)
            self._of.setdefault(address, {})[holder] = None
        share.size += size
        self._count(address, size)
        while holder in self._held and self._sums[address] > self.per_address:
            self._make_room(next(iter(self._of[address])), holder, now, self.per_address, address)
        while holder in self._held and self.used > self.total:
            most = self._most()
            crowd = next(iter(most))
            most[crowd] = most.pop(crowd)  # in rotation
            oldest = next(iter(self._of[crowd]))
            if address in most:
                self._make_room(oldest, holder, now, self.total, "")
            else:
                self._dismiss(oldest, self.total, "")

    def is_used_up(self, address: str, now: float) -> bool:
        """Return whether a new holder of the address would be evicted.

        This is the case if its quota is used up and no holder is past its grace.
        """
        if self._sums.get(address, 0) < self.per_address:
            return False
        return now - self._held[next(iter(self._of[address]))].since < self.grace_s

    def release(self, holder: Holder) -> None:
        """Remove `holder`."""
        share = self._held.pop(holder, None)
        if share is None:
            return
        self._count(share.address, -share.size)
        del self._of[share.address][holder]
        if not self._of[share.address]:
            del self._of[share.address], self._sums[share.address]

    def _make_room(self, oldest: Holder, newcomer: Holder, now: float, limit: int, address: str) -> None:
        self._dismiss(oldest if now - self._held[oldest].since >= self.grace_s else newcomer, limit, address)

    def _dismiss(self, goes: Holder, limit: int, address: str) -> None:
        self.release(goes)
        self.evict(goes, limit, address)

    def _most(self) -> dict[str, None]:
        """Return the addresses with about the largest size."""
        return self._by_size[max(bits for bits, addresses in self._by_size.items() if addresses)]

    def _count(self, address: str, size: int) -> None:
        was = self._sums.get(address, 0)
        self._sums[address] = now = was + size
        self.used += size
        if was.bit_length() != now.bit_length():
            self._by_size[was.bit_length()].pop(address, None)
            if now:
                self._by_size[now.bit_length()][address] = None
