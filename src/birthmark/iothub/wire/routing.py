"""What is on record of a hub's routes: endpoints, routes, enrichments, and the route of what no other takes."""

from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

BUILT_IN = "events"
"""The endpoint that every hub has: what `birthmark hub monitor` reads, which sees all telemetry in any case."""
FALLBACK = "$fallback"
TEMPLATE = "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}"
MAX_ENDPOINTS, MAX_ROUTES, MAX_ENRICHMENTS = 10, 100, 10
""" "IoT Hub quotas and throttling", "Message enrichments"."""


class RouteSource(StrEnum):
    """What messages are of."""

    MESSAGES = "DeviceMessages"
    TWINS = "TwinChangeEvents"
    LIFECYCLE = "DeviceLifecycleEvents"
    CONNECTIONS = "DeviceConnectionStateEvents"


class _OneEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    name: str


class WebhookEndpoint(_OneEndpoint, frozen=True, tag="webhook"):
    """Gets each message by HTTP POST, signed."""

    url: str


class FileEndpoint(_OneEndpoint, frozen=True, tag="file"):
    """Lines of JSON in files of a folder, whose names are made of `file_name`."""

    folder: str
    file_name: str = TEMPLATE


class StreamEndpoint(_OneEndpoint, frozen=True, tag="stream"):
    """A stream of the hub's own, read by groups."""


class ServerEndpoint(_OneEndpoint, frozen=True, tag="server"):
    """A NATS server or an MQTT broker, by its name in the configuration; `topic` may name the hub and the device."""

    server: str
    topic: str


Endpoint: TypeAlias = WebhookEndpoint | FileEndpoint | StreamEndpoint | ServerEndpoint


class HubRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages of `source` for which `condition` holds go to `endpoints`, by their names."""

    name: str
    endpoints: tuple[str, ...]
    source: RouteSource = RouteSource.MESSAGES
    condition: str = "true"
    is_enabled: bool = msgspec.field(default=True, name="enabled")


class Enrichment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A property that is added to what goes to `endpoints`: a text, $iothubname, or a path in the twin ($twin.…)."""

    key: str
    value: str
    endpoints: tuple[str, ...]


class Fallback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where messages go that no route takes."""

    endpoints: tuple[str, ...] = (BUILT_IN,)
    is_enabled: bool = msgspec.field(default=True, name="enabled")


class Routing(msgspec.Struct, frozen=True):
    """All of it, of one hub. Nothing of it is ever changed in place."""

    endpoints: tuple[Endpoint, ...] = ()
    routes: tuple[HubRoute, ...] = ()
    enrichments: tuple[Enrichment, ...] = ()
    fallback: Fallback = Fallback()

    def endpoint(self, name: str) -> Endpoint | None:
        """Return the endpoint of a name; letter case does not count, as at Azure."""
        return next((one for one in self.endpoints if one.name.lower() == name.lower()), None)

    def route(self, name: str) -> HubRoute | None:
        """Return the route of a name; letter case does not count."""
        return next((one for one in self.routes if one.name.lower() == name.lower()), None)

    def leads_to(self, name: str) -> tuple[str, ...]:
        """Return which routes and enrichments name an endpoint."""
        found = [one.name for one in self.routes if name in one.endpoints]
        found += [FALLBACK] if name in self.fallback.endpoints else []
        return (*found, *(f"the enrichment {one.key}" for one in self.enrichments if name in one.endpoints))

    @property
    def sources(self) -> frozenset[RouteSource]:
        """What some route sends somewhere but to where it is anyway."""
        found = {one.source for one in self.routes if one.is_enabled and set(one.endpoints) - {BUILT_IN}}
        if self.fallback.is_enabled and set(self.fallback.endpoints) - {BUILT_IN}:
            found.add(RouteSource.MESSAGES)
        return frozenset(found)


class StoredRouting(msgspec.Struct, frozen=True):
    """The routing of a hub as it was read. `generation` is another for the next hub of the name; `revision` counts.

    `secrets` sign what webhooks get, by the names of their endpoints.
    """

    hub: str
    generation: str
    revision: int
    routing: Routing
    secrets: dict[str, str]
    modified_at: datetime

    def __repr__(self) -> str:
        return f"Kept({self.hub!r}, {self.revision})"
