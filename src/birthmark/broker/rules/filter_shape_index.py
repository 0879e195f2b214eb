"""Filters that match a topic: one candidate per filter shape in use, looked up by its exact text.

The shape of a filter gives the positions of its wildcards: `a/+/c/#` has the shape `.+.#`. Of all filters of a shape
only one can match a topic, and the topic determines it. The number of lookups therefore does not grow with the number
of subscriptions, and neither a tree nor a scan is needed (sections 4.7.1 and 4.7.2).
"""

from collections import Counter
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

MAX_TOPICS = 4096
MAX_RECEIVERS = 200_000

V = TypeVar("V")


class _Value(Generic[V]):
    """Cached value of a set of filters, and the number of topics that use it."""

    __slots__ = ("key", "size", "topics", "value")

    def __init__(self, key: Hashable, value: V, size: int) -> None:
        self.key, self.value, self.size = key, value, size
        self.topics = 0


class RouteCache(Generic[V]):
    """Cache of routes by topic and matching filters.

    The oldest topic is evicted first; the latest value is cached whatever its size.
    """

    def __init__(self) -> None:
        self.of: dict[str, V] = {}
        """Routes by topic; read-only for other code."""
        self._of_topics: dict[str, _Value[V]] = {}
        self._values: dict[Hashable, _Value[V]] = {}
        self._receivers = 0

    @property
    def receivers(self) -> int:
        """Total number of cached receivers."""
        return self._receivers

    def find(self, key: Hashable) -> V | None:
        """Return the cached value of a set of filters."""
        return None if (known := self._values.get(key)) is None else known.value

    def put(self, topic: str, key: Hashable, value: V, size: int) -> V:
        """Cache the value of a topic under its filters `key`.

        Return the existing value of `key`, otherwise `value`.
        """
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
        """Clear the cache."""
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


def shape_of(topic_filter: str) -> str:
    """Return the shape: `.` for a text level, otherwise the wildcard itself."""
    return "".join([level if level in {"+", "#"} else "." for level in topic_filter.split("/")])


class Shapes:
    """Filter shapes in use in a namespace, with the number of subscriptions of each."""

    __slots__ = ("_by_levels", "_counts", "_hash_matches_parent")

    def __init__(self, *, hash_matches_parent: bool = True) -> None:
        self._counts: Counter[str] = Counter()
        self._hash_matches_parent = hash_matches_parent
        self._by_levels: dict[int, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, shape: str, count: int = 1) -> None:
        """Add `count` subscriptions of a filter shape."""
        if shape not in self._counts:
            self._by_levels.clear()
        self._counts[shape] += count

    def discard(self, shape: str, count: int = 1) -> None:
        """Decrease the number of subscriptions of a shape by `count`."""
        self._counts[shape] -= count
        if self._counts[shape] <= 0:
            del self._counts[shape]
            self._by_levels.clear()

    def become(self, shapes: AbstractSet[str]) -> None:
        """Replace the set of shapes."""
        if shapes != self._counts.keys():
            self._counts = Counter(dict.fromkeys(shapes, 1))
            self._by_levels.clear()

    def candidates(self, topic: str) -> list[str]:
        """Return every filter that matches the topic, for the filter shapes in use."""
        levels = topic.split("/")
        count = len(levels)
        if (shapes := self._by_levels.get(count)) is None:
            shapes = tuple([shape for shape in self._counts if self._fits(shape, count)])
            if len(self._by_levels) < 256:  # noqa: PLR2004 - topics deeper than any limit are not cached
                self._by_levels[count] = shapes
        is_reserved = topic.startswith("$")
        found: list[str] = []
        for shape in shapes:
            if is_reserved and shape[0] != ".":
                continue  # [MQTT-4.7.2-1]
            found.append("/".join([levels[at] if kind == "." else kind for at, kind in enumerate(shape)]))
        return found

    def _fits(self, shape: str, count: int) -> bool:
        if not shape.endswith("#"):
            return len(shape) == count
        before = len(shape) - 1
        return before < count or (before == count and self._hash_matches_parent)
