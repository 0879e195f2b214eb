"""Addresses of AMQP links at a hub: bare or as a URL, in any letter case.

A hub's Event Hubs-compatible entity has the hub's name.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import unquote

_URL = re.compile(r"^[a-z]+://[^/]*/?", re.IGNORECASE)
_PARTITION = re.compile(r"([^/]+)/consumergroups/([^/]+)/partitions/([0-9]{1,4})", re.IGNORECASE)
_HUB_EVENTS = re.compile(r"messages/events(?:/.*)?", re.IGNORECASE)


class AmqpNode(StrEnum):
    """Nodes that answer requests."""

    CBS = "$cbs"
    MANAGEMENT = "$management"


@dataclass(frozen=True, slots=True)
class EventPartition:
    """A partition of an Event Hubs-compatible entity, read as a consumer group."""

    entity: str
    group: str
    partition: int


@dataclass(frozen=True, slots=True)
class HubEvents:
    """The event stream by its name at the hub: clients are redirected to its Event Hubs-compatible address."""

    path: str
    """Path after `messages/events`, such as `/$management`."""


AmqpAddress: TypeAlias = AmqpNode | EventPartition | HubEvents


def parse_address(text: str | None) -> AmqpAddress | None:
    """Return the address of a link, or None for an address that this server does not have."""
    path = unquote(_URL.sub("", text or "")).strip("/")
    if (node := path.lower()) in set(AmqpNode):
        return AmqpNode(node)
    if (found := _PARTITION.fullmatch(path)) is not None:
        return EventPartition(found[1], found[2], int(found[3]))
    if _HUB_EVENTS.fullmatch(path):
        return HubEvents(path[len("messages/events") :])
    return None
