"""The topics that begin with `$`: which ask a service of the cloud, which may be subscribed to (developer guide,
"Reserved topics").

What a service answers on its topics it alone publishes there.
"""

import re
from collections.abc import Mapping
from enum import Enum

EVENTS = "$aws/events/"
PRESENCE = f"{EVENTS}presence/"
SUBSCRIPTIONS = f"{EVENTS}subscriptions/"
_OF_THING = re.compile(r"\$aws/things/[^/#]+/(?P<service>[^/]+)(?:/.*)?")
_EVENTS = frozenset(
    {
        "presence",
        "subscriptions",
        "thing",
        "thingType",
        "thingTypeAssociation",
        "thingGroup",
        "thingGroupHierarchy",
        "thingGroupMembership",
        "certificates",
        "+",
        "#",
    }
)
_SUBTREES = frozenset({"shadow", "+", "#"})


class Service(Enum):
    """Who is asked, and by which topics."""

    SHADOW = re.compile(r"\$aws/things/(?P<thing>[^/]+)/shadow(?:/name/(?P<name>[^/]+))?/(?P<verb>get|update|delete)")


_SERVICES = tuple(Service)  # to go through the class costs more than to match


def request_of(topic: str) -> tuple[Service, Mapping[str, str | None]] | None:
    """Return which service a topic asks, and the names in it; None when it asks nobody."""
    for service in _SERVICES:
        if (found := service.value.fullmatch(topic)) is not None:
            return service, found.groupdict()
    return None


def is_question(topic: str) -> bool:
    """Say whether a topic only asks, so that nothing happens where nobody hears the answer."""
    found = request_of(topic)
    return found is None or found[1]["verb"] == "get"


def may_subscribe(topic_filter: str) -> bool:
    """Say whether a filter that begins with `$` stays within events, or a thing's shadows.

    Which of them these may be, policies say.
    """
    if topic_filter.startswith(EVENTS):
        return topic_filter.removeprefix(EVENTS).partition("/")[0] in _EVENTS
    found = _OF_THING.fullmatch(topic_filter)
    return found is not None and found["service"] in _SUBTREES
