"""Stored routing of a hub: endpoints, routes, enrichments and the fallback route."""

from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

BUILT_IN = "events"
"""Built-in endpoint of every hub, which `birthmark hub monitor` reads; it receives all telemetry in any case."""
FALLBACK = "$fallback"
TEMPLATE = "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}"
MAX_ENDPOINTS, MAX_ROUTES, MAX_ENRICHMENTS = 10, 100, 10
"""Maximum numbers per hub ("IoT Hub quotas and throttling", "Message enrichments")."""


class RouteSource(StrEnum):
    """Message source of a route."""

    MESSAGES = "DeviceMessages"
    TWINS = "TwinChangeEvents"
    LIFECYCLE = "DeviceLifecycleEvents"
    CONNECTIONS = "DeviceConnectionStateEvents"


class _OneEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    name: str


class WebhookEndpoint(_OneEndpoint, frozen=True, tag="webhook"):
    """Endpoint that receives each message as a signed HTTP POST."""

    url: str


class FileEndpoint(_OneEndpoint, frozen=True, tag="file"):
    """JSON lines in files of a folder, named by `file_name`."""

    folder: str
    file_name: str = TEMPLATE


class StreamEndpoint(_OneEndpoint, frozen=True, tag="stream"):
    """A stream of the hub, read by consumer groups."""


class ServerEndpoint(_OneEndpoint, frozen=True, tag="server"):
    """A NATS server or MQTT broker, by its name in the configuration; `topic` may contain the hub and the device."""

    server: str
    topic: str


Endpoint: TypeAlias = WebhookEndpoint | FileEndpoint | StreamEndpoint | ServerEndpoint


class HubRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sends messages of `source` that match `condition` to `endpoints`, by name."""

    name: str
    endpoints: tuple[str, ...]
    source: RouteSource = RouteSource.MESSAGES
    condition: str = "true"
    is_enabled: bool = msgspec.field(default=True, name="enabled")


class Enrichment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A property added to messages for `endpoints`: a text, $iothubname, or a twin path ($twin.…)."""

    key: str
    value: str
    endpoints: tuple[str, ...]


class Fallback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fallback route for messages that match no route."""

    endpoints: tuple[str, ...] = (BUILT_IN,)
    is_enabled: bool = msgspec.field(default=True, name="enabled")


class Routing(msgspec.Struct, frozen=True):
    """Routing configuration of a hub; immutable."""

    endpoints: tuple[Endpoint, ...] = ()
    routes: tuple[HubRoute, ...] = ()
    enrichments: tuple[Enrichment, ...] = ()
    fallback: Fallback = Fallback()

    def endpoint(self, name: str) -> Endpoint | None:
        """Return the endpoint of this name, case-insensitive as in Azure."""
        return next((one for one in self.endpoints if one.name.lower() == name.lower()), None)

    def route(self, name: str) -> HubRoute | None:
        """Return the route of this name, case-insensitive."""
        return next((one for one in self.routes if one.name.lower() == name.lower()), None)

    def leads_to(self, name: str) -> tuple[str, ...]:
        """Return the routes and enrichments that use an endpoint."""
        found = [one.name for one in self.routes if name in one.endpoints]
        found += [FALLBACK] if name in self.fallback.endpoints else []
        return (*found, *(f"the enrichment {one.key}" for one in self.enrichments if name in one.endpoints))

    @property
    def sources(self) -> frozenset[RouteSource]:
        """Return the sources that a route sends to other than the built-in endpoint."""
        found = {one.source for one in self.routes if one.is_enabled and set(one.endpoints) - {BUILT_IN}}
        if self.fallback.is_enabled and set(self.fallback.endpoints) - {BUILT_IN}:
            found.add(RouteSource.MESSAGES)
        return frozenset(found)


class StoredRouting(msgspec.Struct, frozen=True):
    """Stored routing of a hub. `generation` differs for a later hub of the name; `revision` counts changes.

    `secrets` sign webhook requests, by endpoint name.
    """

    hub: str
    generation: str
    revision: int
    routing: Routing
    secrets: dict[str, str]
    modified_at: datetime

    def __repr__(self) -> str:
        return f"Kept({self.hub!r}, {self.revision})"
