"""What topics lead to, kept once for all that lead to the same filters.

Both are bounded: how many topics there are, and how many receivers they lead to in all. One topic is a hundred bytes;
what it leads to may be every session there is.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

MAX_TOPICS = 4096
MAX_RECEIVERS = 200_000

V = TypeVar("V")


class _Value(Generic[V]):
    """What some filters lead to, and how many topics lead there."""

    __slots__ = ("key", "size", "topics", "value")

    def __init__(self, key: Hashable, value: V, size: int) -> None:
        self.key, self.value, self.size = key, value, size
        self.topics = 0


class Known(Generic[V]):
    """See the module. The topic that came first goes first; what the last one leads to is kept however large it is."""

    def __init__(self) -> None:
        self.of: dict[str, V] = {}
        """By topic; to be read, and not to be changed by others."""
        self._of_topics: dict[str, _Value[V]] = {}
        self._values: dict[Hashable, _Value[V]] = {}
        self._receivers = 0

    @property
    def receivers(self) -> int:
        """How many receivers are kept in all."""
        return self._receivers

    def find(self, key: Hashable) -> V | None:
        """Return what is known of some filters."""
        return None if (known := self._values.get(key)) is None else known.value

    def put(self, topic: str, key: Hashable, value: V, size: int) -> V:
        """Note what a topic leads to, by the filters `key`; return what is known of them already, else `value`."""
        if topic in self.of:
            self._drop(topic)
        if (known := self._values.get(key)) is None:
            known = self._values[key] = _Value(key, value, size)
            self._receivers += size
        known.topics += 1
        self.of[topic], self._of_topics[topic] = known.value, known
        while len(self.of) > MAX_TOPICS or (self._receivers > MAX_RECEIVERS and len(self._values) > 1):
            self._drop(next(iter(self.of)))
        return known.value

    def clear(self) -> None:
        """Forget everything."""
        self.of.clear()
        self._of_topics.clear()
        self._values.clear()
        self._receivers = 0

    def _drop(self, topic: str) -> None:
        del self.of[topic]
        known = self._of_topics.pop(topic)
        known.topics -= 1
        if not known.topics:
            del self._values[known.key]
            self._receivers -= known.size
