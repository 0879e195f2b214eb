"""The tokens that connections were opened with, by when they end: who outlives its own goes."""

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from weakref import ReferenceType, ref

from birthmark.auth.sas import SKEW, SasExpiredError, SasToken, check_expiry

_MOST = 1024


class Line(Protocol):
    """What carries a connection."""

    @property
    def is_over(self) -> bool: ...


class Held(Protocol):
    """A connection that was opened with a token."""

    @property
    def pump(self) -> Line: ...


OneHeld = TypeVar("OneHeld", bound=Held)


class Tokens(Generic[OneHeld]):
    """Asked every few seconds: it looks at those whose time has come, however many there are."""

    def __init__(self) -> None:
        self._by_end: list[tuple[int, int, SasToken, ReferenceType[OneHeld]]] = []
        self._count = 0
        self._most = _MOST

    def __len__(self) -> int:
        return len(self._by_end)

    def add(self, token: SasToken, connection: OneHeld) -> None:
        """Remember until when a connection may be; of those that went, half of what is kept at most."""
        if len(self._by_end) >= self._most:
            self._by_end = [one for one in self._by_end if (known := one[3]()) is not None and not known.pump.is_over]
            heapq.heapify(self._by_end)
            self._most = max(_MOST, 2 * len(self._by_end))
        self._count += 1  # tokens that end together are never compared further
        heapq.heappush(self._by_end, (token.expiry_s, self._count, token, ref(connection)))

    def expired(self, now: datetime) -> Iterator[tuple[OneHeld, SasExpiredError]]:
        """Yield and forget the connections whose token is refused by now, each with that refusal."""
        until = (now - SKEW).timestamp()
        while self._by_end and self._by_end[0][0] < until:
            _, _, token, known = heapq.heappop(self._by_end)
            if (connection := known()) is None or connection.pump.is_over:
                continue
            try:
                check_expiry(token, now)
            except SasExpiredError as error:
                yield connection, error
