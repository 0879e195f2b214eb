"""Parts of the rules' time: who used up its own of a second is decided on behind all others.

A message can cost a thousand times what another does, and all are read in the order of one stream. So each publisher,
and each rule, has a share of a second; what comes beyond it goes to a second stream, which is read when it is its turn.
Of one publisher and one rule the order is kept.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from birthmark.broker.stream import FromDevice
from birthmark.clock import Clock

OF_PUBLISHER_S, OF_RULE_S = 0.1, 0.3
"""Of the processor, in each second."""
_ROUND_S = 1.0

spent = time.thread_time  # what rules cost is measured by the processor's clock, whatever time a server is told


class RoutedMessage(FromDevice, Protocol):
    """What shares have to know of a message."""

    @property
    def publisher(self) -> str: ...


T = TypeVar("T", bound=RoutedMessage)


class RulePair(NamedTuple):
    """A publisher, and a rule that its messages are for."""

    publisher: str
    rule: str


class DeferredMessage(msgspec.Struct, Generic[T], frozen=True, array_like=True, gc=False):
    """A message that one rule decides on later."""

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
    """What publishers and rules have used of this second, and what of theirs waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = 0.0
        self._of_publisher: Counter[str] = Counter()
        self._of_rule: Counter[str] = Counter()
        self.waiting: Counter[RulePair] = Counter()

    def is_used_up(self, pair: RulePair) -> bool:
        """Say whether what a rule decides of a publisher has to wait."""
        now = self._clock.monotonic()
        if now - self._since >= _ROUND_S:
            self._since = now
            self._of_publisher.clear()
            self._of_rule.clear()
        if self.waiting[pair] > 0:
            return True
        return self._of_publisher[pair.publisher] > OF_PUBLISHER_S or self._of_rule[pair.rule] > OF_RULE_S

    def count(self, pair: RulePair, took: float) -> None:
        """Note what a decision took, in seconds."""
        self._of_publisher[pair.publisher] += took  # type: ignore[assignment] # a counter of seconds
        self._of_rule[pair.rule] += took  # type: ignore[assignment]

    def forget(self, pairs: Sequence[RulePair]) -> None:
        """Note what no longer waits."""
        self.waiting.subtract(pairs)
        self.waiting = +self.waiting


def in_turns(held: Sequence[DeferredMessage[T]]) -> Iterator[tuple[int, DeferredMessage[T]]]:
    """Yield messages with their places: one of each publisher and rule, then the next of each."""
    lines: dict[RulePair, deque[tuple[int, DeferredMessage[T]]]] = {}
    for place, one in enumerate(held):
        lines.setdefault(one.pair, deque()).append((place, one))
    while lines:
        for pair, line in tuple(lines.items()):
            yield line.popleft()
            if not line:
                del lines[pair]
