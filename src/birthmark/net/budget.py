"""How much strangers may keep here: as many things in all, as many an address.

A stranger is who has not authenticated. When there is no more room, the one that has kept its share longest makes room
if it has had `grace_s` for it: whoever is served needs milliseconds. Otherwise the newcomer goes, or a rush of clients
would only push each other out. Where each asks once and is answered at once, no grace is better: nobody shuts others
out by holding on.

What is counted, connections or bytes, is the owner's affair. Here is only who must go.
"""

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
class Budget(Generic[Holder]):
    """`evict` is told who must go, which limit is used up, and whose; it sees to it that `release` is called."""

    total: int
    per_address: int
    evict: Callable[[Holder, int, str], None] = field(repr=False)
    grace_s: float = GRACE_S
    _held: dict[Holder, _Share] = field(default_factory=dict, init=False, repr=False)
    _of: dict[str, dict[Holder, None]] = field(default_factory=dict, init=False, repr=False)
    _sums: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    used: int = field(default=0, init=False)

    def take(self, holder: Holder, address: str, size: int, now: float) -> None:
        """Count `size` more for `holder`; make room if there is none. `now` is monotonic seconds."""
        share = self._held.get(holder)
        if share is None:
            share = self._held[holder] = _Share(now, address)
            self._of.setdefault(address, {})[holder] = None
        share.size += size
        self.used += size
        self._sums[address] = self._sums.get(address, 0) + size
        while holder in self._held and self._sums[address] > self.per_address:
            self._make_room(next(iter(self._of[address])), holder, now, self.per_address, address)
        while holder in self._held and self.used > self.total:
            self._make_room(next(iter(self._held)), holder, now, self.total, "")

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
        self.used -= share.size
        self._sums[share.address] -= share.size
        del self._of[share.address][holder]
        if not self._of[share.address]:
            del self._of[share.address], self._sums[share.address]

    def _make_room(self, oldest: Holder, newcomer: Holder, now: float, limit: int, address: str) -> None:
        goes = oldest if now - self._held[oldest].since >= self.grace_s else newcomer
        self.release(goes)
        self.evict(goes, limit, address)
