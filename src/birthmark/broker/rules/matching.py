"""Which filters a topic fits: one candidate for each shape of filter in use, looked up by its exact text.

The shape of a filter says where its wildcards are: `a/+/c/#` has the shape `.+.#`. Of all filters of one shape only a
single one can fit a topic, and the topic itself says which. So what has to be looked up does not grow with the number
of subscriptions, and neither a tree nor a scan is needed (sections 4.7.1 and 4.7.2).
"""

from collections import Counter
from collections.abc import Set as AbstractSet


def shape_of(topic_filter: str) -> str:
    """Return the shape: `.` for a level that is text, else the wildcard itself."""
    return "".join([level if level in {"+", "#"} else "." for level in topic_filter.split("/")])


class Shapes:
    """The shapes in use in one space, each with the number of its subscriptions."""

    __slots__ = ("_by_levels", "_counts", "_hash_matches_parent")

    def __init__(self, *, hash_matches_parent: bool = True) -> None:
        self._counts: Counter[str] = Counter()
        self._hash_matches_parent = hash_matches_parent
        self._by_levels: dict[int, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, shape: str, count: int = 1) -> None:
        """Note `count` more subscriptions of a shape."""
        if shape not in self._counts:
            self._by_levels.clear()
        self._counts[shape] += count

    def discard(self, shape: str, count: int = 1) -> None:
        """Note that `count` subscriptions of a shape are gone."""
        self._counts[shape] -= count
        if self._counts[shape] <= 0:
            del self._counts[shape]
            self._by_levels.clear()

    def become(self, shapes: AbstractSet[str]) -> None:
        """Forget all shapes but these, and note those that are missing."""
        if shapes != self._counts.keys():
            self._counts = Counter(dict.fromkeys(shapes, 1))
            self._by_levels.clear()

    def candidates(self, topic: str) -> list[str]:
        """Return every filter, of the shapes in use, that the topic fits."""
        levels = topic.split("/")
        count = len(levels)
        if (shapes := self._by_levels.get(count)) is None:
            shapes = tuple([shape for shape in self._counts if self._fits(shape, count)])
            if len(self._by_levels) < 256:  # noqa: PLR2004 - topics deeper than any limit are not remembered
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
