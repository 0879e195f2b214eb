"""How much strangers may keep here: as many things in all, as many an address.

A stranger is who has not authenticated. When an address has no more room, the one of it that has kept its share
longest makes room if it has had `grace_s` for it: whoever is served needs milliseconds. Otherwise the newcomer goes, or
a rush of clients would only push each other out. Where each asks once and is answered at once, no grace is better:
nobody shuts others out by holding on.

When there is no more room for all, the address that holds most makes room, whatever its own share: those that fill it
together, few or many, keep out nobody who holds little. As much as most is what is held by half of that, or more; of
several such each makes room in its turn.

What is counted, connections or bytes, is the owner's affair. Here is only who must go.
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
    """`evict` is told who must go, which limit is used up, and whose; it sees to it that `release` is called."""

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
    """Addresses, by the bits of what each holds."""
    used: int = field(default=0, init=False)

    def take(self, holder: Holder, address: str, size: int, now: float) -> None:
        """Count `size` more for `holder`; make room if there is none. `now` is monotonic seconds."""
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
            most[crowd] = most.pop(crowd)  # each in its turn
            oldest = next(iter(self._of[crowd]))
            if address in most:
                self._make_room(oldest, holder, now, self.total, "")
            else:
                self._dismiss(oldest, self.total, "")

    def is_used_up(self, address: str, now: float) -> bool:
        """Say whether whoever comes by an address would have to go: it has its share, and none of it long enough."""
        if self._sums.get(address, 0) < self.per_address:
            return False
        return now - self._held[next(iter(self._of[address]))].since < self.grace_s

    def release(self, holder: Holder) -> None:
        """Nothing is kept for `holder` any more."""
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
        """Return the addresses that hold about as much as whoever holds most."""
        return self._by_size[max(bits for bits, addresses in self._by_size.items() if addresses)]

    def _count(self, address: str, size: int) -> None:
        was = self._sums.get(address, 0)
        self._sums[address] = now = was + size
        self.used += size
        if was.bit_length() != now.bit_length():
            self._by_size[was.bit_length()].pop(address, None)
            if now:
                self._by_size[now.bit_length()][address] = None
