"""Quota for data that peers have not read: a total limit and a limit per principal.

The principal's number of connections does not matter. A message to many subscribers that do not read is stored once for
each. If a limit is exceeded, the principal with the most unread data loses the connection with the most.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SMALL_BYTES = 64 * 1024
"""Minimum size that is counted; smaller amounts are normal."""

Holder = TypeVar("Holder")


@dataclass(slots=True)
class SendBufferQuota(Generic[Holder]):
    """Unread data per holder.

    `size_of` returns a holder's current size and `owner_of` its owner. `evict` receives the holder to close, with the
    limit and its setting.
    """

    total: int
    each: int
    size_of: Callable[[Holder], int] = field(repr=False)
    owner_of: Callable[[Holder], str] = field(repr=False)
    evict: Callable[[Holder, int, str], None] = field(repr=False)
    _held: dict[Holder, int] = field(default_factory=dict, init=False, repr=False)
    _sums: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    used: int = field(default=0, init=False)

    def note(self, holder: Holder, size: int) -> None:
        """Record the unread bytes of `holder`; evict holders if a limit is exceeded."""
        if size < SMALL_BYTES:
            if holder in self._held:
                self._set(holder, 0)
            return
        self._set(holder, size)
        if self.used > self.total or self._sums[self.owner_of(holder)] > self.each:
            self._refresh_sizes()
            while self._held and self.used > self.total:
                self._make_room(max(self._sums, key=self._sums.__getitem__), self.total, "max_unread_bytes")
            owner = self.owner_of(holder)
            while self._sums.get(owner, 0) > self.each:
                self._make_room(owner, self.each, "max_unread_bytes_per_peer")

    def release(self, holder: Holder) -> None:
        """Remove `holder` from the quota."""
        if holder in self._held:
            self._set(holder, 0)

    def _refresh_sizes(self) -> None:
        """Refresh the size of every holder, as reads since the last message are not reported."""
        for holder in tuple(self._held):
            size = self.size_of(holder)
            self._set(holder, size if size >= SMALL_BYTES else 0)

    def _make_room(self, owner: str, limit: int, setting: str) -> None:
        goes = max((one for one in self._held if self.owner_of(one) == owner), key=self._held.__getitem__)
        self.release(goes)
        self.evict(goes, limit, setting)

    def _set(self, holder: Holder, size: int) -> None:
        owner = self.owner_of(holder)
        more = size - self._held.get(holder, 0)
        self.used += more
        self._sums[owner] = self._sums.get(owner, 0) + more
        if size:
            self._held[holder] = size
        else:
            self._held.pop(holder, None)
        if not self._sums[owner]:
            del self._sums[owner]
