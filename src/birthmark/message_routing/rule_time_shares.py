"""Time shares of rules: messages beyond a publisher's share of a second are deferred.

A message can cost a thousand times as much as another, and all are read in the order of one stream. So each publisher
and each rule has a share of a second. Messages beyond it are written to a second stream, which is read in turns. The
order per publisher and rule is kept.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from birthmark.broker.database_stream import FromDevice
from birthmark.clock_and_entropy import Clock

OF_PUBLISHER_S, OF_RULE_S = 0.1, 0.3
"""Limits of processor time in seconds, per second."""
_ROUND_S = 1.0

spent = time.thread_time  # rule cost uses the CPU clock, whatever time a server is given


class RoutedMessage(FromDevice, Protocol):
    """Message fields that time shares require."""

    @property
    def publisher(self) -> str: ...


T = TypeVar("T", bound=RoutedMessage)


class RulePair(NamedTuple):
    """A publisher and a rule that processes its messages."""

    publisher: str
    rule: str


class DeferredMessage(msgspec.Struct, Generic[T], frozen=True, array_like=True, gc=False):
    """A message that one rule evaluates later."""

    rule: str
    message: T

    @property
    def device_id(self) -> str:
        return self.message.device_id

    @property
    def publisher(self) -> str:
        return self.message.publisher

    @property
    def enqueued_micros(self) -> int:
        return self.message.enqueued_micros

    @property
    def pair(self) -> RulePair:
        return RulePair(self.message.publisher, self.rule)


class TimeShares:
    """Time used by publishers and rules in this second, and their deferred messages."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = 0.0
        self._of_publisher: Counter[str] = Counter()
        self._of_rule: Counter[str] = Counter()
        self.waiting: Counter[RulePair] = Counter()

    def is_used_up(self, pair: RulePair) -> bool:
        """Return whether messages of this publisher and rule must be deferred."""
        now = self._clock.monotonic()
        if now - self._since >= _ROUND_S:
            self._since = now
            self._of_publisher.clear()
            self._of_rule.clear()
        if self.waiting[pair] > 0:
            return True
        return self._of_publisher[pair.publisher] > OF_PUBLISHER_S or self._of_rule[pair.rule] > OF_RULE_S

    def count(self, pair: RulePair, took: float) -> None:
        """Count the time of a decision in seconds."""
        self._of_publisher[pair.publisher] += took  # type: ignore[assignment] # counter of seconds
        self._of_rule[pair.rule] += took  # type: ignore[assignment]

    def forget(self, pairs: Sequence[RulePair]) -> None:
        """Remove messages that are no longer deferred."""
        self.waiting.subtract(pairs)
        self.waiting = +self.waiting


def in_turns(held: Sequence[DeferredMessage[T]]) -> Iterator[tuple[int, DeferredMessage[T]]]:
    """Yield messages with their positions, round-robin by publisher and rule."""
    lines: dict[RulePair, deque[tuple[int, DeferredMessage[T]]]] = {}
    for place, one in enumerate(held):
        lines.setdefault(one.pair, deque()).append((place, one))
    while lines:
        for pair, line in tuple(lines.items()):
            yield line.popleft()
            if not line:
                del lines[pair]
