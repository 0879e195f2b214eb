"""Topic names and topic filters: what is well formed, what matches (section 4.7), and a tree of subscriptions."""

MAX_TOPIC_BYTES = 65_535


def is_valid_name(name: str) -> bool:
    """Say whether `name` may be published to: not empty, no wildcard, no U+0000 (section 4.7.3)."""
    return bool(name) and "+" not in name and "#" not in name and "\0" not in name


def is_valid_filter(topic_filter: str) -> bool:
    """Say whether `topic_filter` may be subscribed to: `#` alone and last, `+` alone in a level (section 4.7.1)."""
    if not topic_filter or "\0" in topic_filter:
        return False
    if (
        "#" in topic_filter
        and topic_filter != "#"
        and not (topic_filter.endswith("/#") and topic_filter.count("#") == 1)
    ):
        return False
    return "+" not in topic_filter or all(level == "+" or "+" not in level for level in topic_filter.split("/"))


def matches(topic_filter: str, name: str) -> bool:
    """Say whether a subscription to `topic_filter` gets what is published to `name` (sections 4.7.1 and 4.7.2)."""
    if topic_filter == name:
        return True
    if name.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted = topic_filter.split("/")
    given = name.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(given) or level not in ("+", given[at]):
            return False
    return len(wanted) == len(given)
