"""Topic names and topic filters (section 4.7): validation and matching."""

from collections.abc import Hashable
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T", bound=Hashable)
SHARED = "$share/"
CACHED = 256  # bytes; longer names are not cached


def is_valid_name(name: str) -> bool:
    """Return whether `name` is a valid topic name: not empty, no wildcard, no U+0000 (section 4.7.3)."""
    return bool(name) and "+" not in name and "#" not in name and "\0" not in name


def read_name(raw: bytes) -> str | None:
    """Return the topic name in these bytes, or None if it is not a valid topic name."""
    return _short_name(raw) if len(raw) <= CACHED else _decoded(raw)


def _decoded(raw: bytes) -> str | None:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    return name if is_valid_name(name) else None


_short_name = lru_cache(maxsize=4096)(_decoded)
"""Cached decoder: equal names are the same object, so that lookups need no new hash or comparison."""


def is_valid_filter(topic_filter: str) -> bool:
    """Return whether `topic_filter` is valid: `#` alone and last, `+` alone in a level (section 4.7.1)."""
    if not topic_filter or "\0" in topic_filter:
        return False
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return False
    return all(level == "+" or "+" not in level for level in levels)


def split_shared(topic_filter: str) -> tuple[str | None, str]:
    """Return the share name, or None if the filter is not shared, and the topic filter (5.0 section 4.8.2)."""
    if not topic_filter.startswith(SHARED):
        return None, topic_filter
    share, _, rest = topic_filter[len(SHARED) :].partition("/")
    return share, rest


def is_valid_shared(topic_filter: str) -> bool:
    """Return whether a filter is valid in MQTT 5; a shared subscription needs a share name and a valid filter."""
    share, rest = split_shared(topic_filter)
    if share is None:
        return is_valid_filter(rest)
    return bool(share) and "+" not in share and "#" not in share and is_valid_filter(rest)  # [MQTT-4.8.2-1], -2


def matches(topic_filter: str, name: str, *, hash_matches_parent: bool = True) -> bool:
    """Return whether `topic_filter` matches `name` (sections 4.7.1 and 4.7.2).

    In the specification `sensor/#` also matches `sensor`. AWS IoT differs; `hash_matches_parent` selects the behavior.
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
