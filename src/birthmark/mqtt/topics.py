"""Topic names and topic filters (section 4.7): what is well formed, what matches, and a tree of subscriptions.

The tree finds who subscribed to a name in one walk. Its values are whoever subscribes (a connection, a session id); it
is bounded in subscriptions and in depth.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

from birthmark.mqtt.errors import LocalProtocolError

T = TypeVar("T", bound=Hashable)
SHARED = "$share/"


def is_valid_name(name: str) -> bool:
    """Say whether `name` may be published to: not empty, no wildcard, no U+0000 (section 4.7.3)."""
    return bool(name) and "+" not in name and "#" not in name and "\0" not in name


def is_valid_filter(topic_filter: str) -> bool:
    """Say whether `topic_filter` may be subscribed to: `#` alone and last, `+` alone in a level (section 4.7.1)."""
    if not topic_filter or "\0" in topic_filter:
        return False
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return False
    return all(level == "+" or "+" not in level for level in levels)


def split_shared(topic_filter: str) -> tuple[str | None, str]:
    """Return the share name, None where the filter is not shared, and the filter that matches (5.0 section 4.8.2)."""
    if not topic_filter.startswith(SHARED):
        return None, topic_filter
    share, _, rest = topic_filter[len(SHARED) :].partition("/")
    return share, rest


def is_valid_shared(topic_filter: str) -> bool:
    """Say whether a filter is well formed for MQTT 5: a share has a name, and a filter of its own behind it."""
    share, rest = split_shared(topic_filter)
    if share is None:
        return is_valid_filter(rest)
    return bool(share) and "+" not in share and "#" not in share and is_valid_filter(rest)  # [MQTT-4.8.2-1], -2


def matches(topic_filter: str, name: str, *, hash_matches_parent: bool = True) -> bool:
    """Say whether a subscription to `topic_filter` gets what is published to `name` (sections 4.7.1 and 4.7.2).

    By the specification `sensor/#` also matches `sensor`; AWS IoT says no, hence the switch.
    """
    if name.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted = topic_filter.split("/")
    given = name.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return len(given) > at or hash_matches_parent
        if at >= len(given) or level not in ("+", given[at]):
            return False
    return len(wanted) == len(given)


class TreeFullError(LocalProtocolError):
    """The tree holds as many subscriptions, or levels, as it may."""


class _Node(Generic[T]):
    __slots__ = ("below", "here")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.here: dict[T, int] = {}


class TopicTree(Generic[T]):
    """Who subscribed to what with which QoS. `hash_matches_parent` as in `topics.matches`."""

    def __init__(
        self, *, max_subscriptions: int = 1_000_000, max_levels: int = 128, hash_matches_parent: bool = True
    ) -> None:
        self._root: _Node[T] = _Node()
        self._count = 0
        self._max_subscriptions = max_subscriptions
        self._max_levels = max_levels
        self._hash_matches_parent = hash_matches_parent

    def __len__(self) -> int:
        return self._count

    def subscribe(self, topic_filter: str, who: T, qos: int = 0) -> bool:
        """Add or replace a subscription ([MQTT-3.8.4-3]) and say whether it is new.

        Raise `LocalProtocolError` for an invalid filter, of these `TreeFullError` when there is no room.
        """
        if not is_valid_filter(topic_filter):
            raise LocalProtocolError("the topic filter is empty or has a misplaced wildcard")
        levels = topic_filter.split("/")
        if len(levels) > self._max_levels:
            raise TreeFullError(f"a topic filter has more than {self._max_levels} levels")
        found = self._find(levels)
        is_new = found is None or who not in found.here
        if is_new and self._count >= self._max_subscriptions:
            raise TreeFullError(f"there are {self._max_subscriptions} subscriptions already")
        node = self._root
        for level in levels:
            node = node.below.setdefault(level, _Node())
        node.here[who] = qos
        self._count += is_new
        return is_new

    def unsubscribe(self, topic_filter: str, who: T) -> bool:
        """Remove a subscription by the exact filter ([MQTT-3.10.4-1]) and say whether it was there."""
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            path.append((node, level))
            below = node.below.get(level)
            if below is None:
                return False
            node = below
        if node.here.pop(who, None) is None:
            return False
        self._count -= 1
        for parent, level in reversed(path):
            child = parent.below[level]
            if child.here or child.below:
                break
            del parent.below[level]
        return True

    def match(self, name: str) -> dict[T, int]:
        """Return who gets a message published to `name`, each once with the highest QoS of its subscriptions."""
        found: dict[T, int] = {}
        nodes = [self._root]
        levels = name.split("/")
        for at, level in enumerate(levels):
            is_reserved = at == 0 and level.startswith("$")  # [MQTT-4.7.2-1]
            following: list[_Node[T]] = []
            for node in nodes:
                if (exact := node.below.get(level)) is not None:
                    following.append(exact)
                if is_reserved:
                    continue
                if (any_one := node.below.get("+")) is not None:
                    following.append(any_one)
                if (any_rest := node.below.get("#")) is not None:
                    _collect(any_rest, found)
            if not following:
                return found
            nodes = following
        for node in nodes:
            _collect(node, found)
            if self._hash_matches_parent and (any_rest := node.below.get("#")) is not None:
                _collect(any_rest, found)
        return found

    def _find(self, levels: list[str]) -> _Node[T] | None:
        node: _Node[T] | None = self._root
        for level in levels:
            if node is None:
                return None
            node = node.below.get(level)
        return node


def _collect(node: _Node[T], found: dict[T, int]) -> None:
    for who, qos in node.here.items():
        found[who] = max(qos, found.get(who, 0))
