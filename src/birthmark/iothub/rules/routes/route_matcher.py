"""Selection of the routes and endpoints of a message, by the source and the condition of each route."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.routes.configuration_changes import compiled, read_once
from birthmark.iothub.wire.d2c_property_bags import MODULE, auth_method_json
from birthmark.iothub.wire.stored_routing_configuration import (
    BUILT_IN,
    FALLBACK,
    Endpoint,
    Enrichment,
    HubRoute,
    RouteSource,
    StoredRouting,
)
from birthmark.iothub.wire.times_and_body_validation import operation_time
from birthmark.message_routing import routable_message
from birthmark.message_routing.rules.conditions import RouteCondition, RoutedSubject, TooMuchError, holds

log = logging.getLogger(__name__)
SOURCE = "iothub-message-source"
_MICROS = 1_000_000
# Names in the hub -> names in conditions and endpoints ("Query device-to-cloud messages").
SYSTEM: Mapping[str, str] = {
    "message-id": "messageId",
    "correlation-id": "correlationId",
    "user-id": "userId",
    "content-type": "contentType",
    "content-encoding": "contentEncoding",
    MODULE: "connectionModuleId",
    "absolute-expiry-time": "expiryTimeUtc",
}


@dataclass(frozen=True, slots=True)
class PreparedRouting:
    """A hub's compiled routing configuration."""

    kept: StoredRouting
    routes: Sequence[tuple[HubRoute, RouteCondition]]
    """Enabled routes."""
    needs_twin: bool
    sources: frozenset[RouteSource]

    @property
    def hub(self) -> str:
        return self.kept.hub

    @property
    def generation(self) -> str:
        return self.kept.generation

    def enrichments(self, endpoint: str) -> Sequence[Enrichment]:
        """Return the enrichments of an endpoint."""
        return [one for one in self.kept.routing.enrichments if endpoint in one.endpoints]


def prepare_routing(kept: StoredRouting) -> PreparedRouting:
    """Return a compiled routing configuration. Raise `RouteConditionError`."""
    routing = kept.routing
    routes = [(one, compiled(one.condition, kept.hub, read_once)) for one in routing.routes if one.is_enabled]
    needs_twin = any(condition.needs_twin for _, condition in routes)
    needs_twin = needs_twin or any(one.value.startswith("$twin.") for one in routing.enrichments)
    return PreparedRouting(kept, routes, needs_twin, routing.sources)


def source_of(message: TelemetryMessage) -> RouteSource:
    """Return the source of a message; telemetry carries no source property."""
    text = message.system.get(SOURCE)
    return RouteSource.MESSAGES if text is None else RouteSource(text[:1].upper() + text[1:])


def imagined(
    device: str, body: str, properties: Mapping[str, str], system: Mapping[str, str], micros: int = 0
) -> TelemetryMessage:
    """Return a sample message; `system` has system properties by their names in conditions."""
    kept = {shown.lower(): name for name, shown in SYSTEM.items()}
    own: dict[str, str | None] = {kept.get(name.lower(), name): value for name, value in system.items()}
    given: dict[str, str | None] = dict(properties)
    return TelemetryMessage(device, micros, body.encode(), own, given)


def read(message: TelemetryMessage) -> routable_message.RoutableMessage:
    """Return a message in the form that conditions evaluate."""
    system = system_properties(message)
    return routable_message.RoutableMessage(
        "",
        message.body,
        message.device_id,
        user_properties=tuple((name, value or "") for name, value in message.properties.items()),
        system_properties=tuple(system.items()),
    )


def _time(message: TelemetryMessage) -> str:
    return operation_time(event_time(message))


def is_match(condition: RouteCondition, subject: RoutedSubject, route: str) -> bool:
    """Return whether a condition holds; one that exceeds its cost limit does not."""
    try:
        return holds(condition, subject)
    except TooMuchError as error:
        log.warning("hub.route_costs_too_much", extra={"route": route, "reason": error.what})
        return False


def matching(
    ready: PreparedRouting,
    source: RouteSource,
    message: routable_message.RoutableMessage,
    twin: Mapping[str, Any] | None,
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the matching routes with their endpoints; the last, fallback, route only if no other matches."""
    is_taken, subject = False, RoutedSubject(message, twin)
    for route, condition in ready.routes:
        if route.source is source and is_match(condition, subject, route.name):
            is_taken = True
            yield route.name, route.endpoints
    fallback = ready.kept.routing.fallback
    if not is_taken and source is RouteSource.MESSAGES and fallback.is_enabled:
        yield FALLBACK, fallback.endpoints


def destinations(
    ready: PreparedRouting,
    source: RouteSource,
    message: routable_message.RoutableMessage,
    twin: Mapping[str, Any] | None,
) -> Mapping[str, str]:
    """Return the distinct endpoints of a message, each with the first route that selects it."""
    found: dict[str, str] = {}
    for route, endpoints in matching(ready, source, message, twin):
        for name in endpoints:
            if name != BUILT_IN:
                found.setdefault(name, route)
    return found


def lane_of(hub: str, route: str, endpoint: str) -> str:
    """Return the ordering partition of a route and endpoint; see `rule_of`."""
    return f"{rule_of(hub, route)}/{endpoint}"


def rule_of(hub: str, route: str) -> str:
    """Return a route's rule name in the delivery queue, which it shares with other services."""
    return f"hub:{hub}:{route}"


def kind_of(endpoint: Endpoint) -> str:
    """Return the action that delivers messages to an endpoint."""
    return f"hub-{endpoint.__struct_config__.tag}"


def system_properties(message: TelemetryMessage) -> dict[str, str]:
    system = {SYSTEM.get(name, name): value or "" for name, value in message.system.items()}
    told = {"connectionDeviceId": message.device_id, SOURCE: "Telemetry"}
    if message.auth_method:
        told["connectionAuthMethod"] = auth_method_json(message)
        told["connectionDeviceGenerationId"] = str(message.generation_id)
    return {**told, **system, "enqueuedTime": _time(message)}


def event_time(message: TelemetryMessage) -> datetime:
    return datetime.fromtimestamp(message.enqueued_micros / _MICROS, UTC)
