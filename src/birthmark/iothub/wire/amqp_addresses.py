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
_DEVICE = re.compile(
    r"devices/([^/]+)(?:/modules/([^/]+))?/(messages/events|messages/devicebound|twin|methods/devicebound)",
    re.IGNORECASE,
)
_C2D_TARGET = re.compile(r"/?devices/([^/]+)(?:/modules/([^/]+))?/messages/devicebound", re.IGNORECASE)


class AmqpNode(StrEnum):
    """Nodes that answer requests."""

    CBS = "$cbs"
    MANAGEMENT = "$management"


class ServiceNode(StrEnum):
    """Nodes of the service API: cloud-to-device messages, their feedback, and notifications of uploaded files."""

    C2D = "messages/devicebound"
    FEEDBACK = "messages/servicebound/feedback"
    FILE_NOTIFICATIONS = "messages/servicebound/filenotifications"


class DeviceFeature(StrEnum):
    """What a device or module has an address for."""

    EVENTS = "messages/events"
    DEVICEBOUND = "messages/devicebound"
    TWIN = "twin"
    METHODS = "methods/devicebound"


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A feature of a device, or of a module of it."""

    device_id: str
    module_id: str | None
    feature: DeviceFeature


@dataclass(frozen=True, slots=True)
class EventPartition:
    """A partition of an Event Hubs-compatible entity, read as a consumer group."""

    entity: str
    group: str
    partition: int

    @property
    def resource(self) -> str:
        """Path that a token for the partition covers."""
        return f"{self.entity}/consumergroups/{self.group}/partitions/{self.partition}"


@dataclass(frozen=True, slots=True)
class HubEvents:
    """The event stream by its name at the hub: clients are redirected to its Event Hubs-compatible address."""

    path: str
    """Path after `messages/events`, such as `/$management`."""


AmqpAddress: TypeAlias = AmqpNode | ServiceNode | DeviceNode | EventPartition | HubEvents


def parse_address(text: str | None) -> AmqpAddress | None:
    """Return the address of a link, or None for an address that this server does not have."""
    path = unquote(_URL.sub("", text or "")).strip("/")
    low = path.lower()
    if low in set(AmqpNode):
        return AmqpNode(low)
    if low in set(ServiceNode):
        return ServiceNode(low)
    if (found := _DEVICE.fullmatch(path)) is not None:
        return DeviceNode(found[1], found[2], DeviceFeature(found[3].lower()))
    if (found := _PARTITION.fullmatch(path)) is not None:
        return EventPartition(found[1], found[2], int(found[3]))
    if _HUB_EVENTS.fullmatch(path):
        return HubEvents(path[len("messages/events") :])
    return None


def is_in_entity(text: str, entity: str) -> bool:
    """Return whether an address is an entity, or a part of it."""
    path = unquote(_URL.sub("", text)).strip("/")
    return path.partition("/")[0].lower() == entity.lower()


def parse_c2d_target(text: str | None) -> tuple[str, str | None] | None:
    """Return the device and the module in the `to` property of a cloud-to-device message, or None."""
    found = _C2D_TARGET.fullmatch(_URL.sub("/", text or ""))
    return None if found is None else (unquote(found[1]), None if found[2] is None else unquote(found[2]))
