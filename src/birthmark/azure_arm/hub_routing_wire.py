"""Hub routing in Azure Resource Manager format: `properties.routing`, and route tests.

Storage containers map to folders, and event hubs map to the hub's own streams. Webhooks and servers have no equivalent;
updates preserve them. Unsupported members are rejected by name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from birthmark.azure_arm.wire import BodyInvalidError
from birthmark.iothub.rules.routes import configuration_changes, route_matcher
from birthmark.iothub.wire.stored_routing_configuration import (
    FALLBACK,
    TEMPLATE,
    Endpoint,
    Enrichment,
    Fallback,
    FileEndpoint,
    HubRoute,
    Routing,
    StreamEndpoint,
)
from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.conditions import SqlMistake
from birthmark.unknown_field_detection import find_unread_member, says_something
from birthmark.untrusted_json_and_text import read_json


class _Container(msgspec.Struct, rename="camel"):
    name: str
    container_name: str
    file_name_format: str | None = None
    encoding: str | None = None


class _EventHub(msgspec.Struct):
    name: str


class _Endpoints(msgspec.Struct, rename="camel"):
    event_hubs: list[_EventHub] | None = None
    storage_containers: list[_Container] | None = None


class _Route(msgspec.Struct, rename="camel"):
    name: str
    source: str
    endpoint_names: list[str]
    is_enabled: bool
    condition: str | None = None


class _Fallback(msgspec.Struct, rename="camel"):
    source: str
    endpoint_names: list[str]
    is_enabled: bool
    condition: str | None = None
    name: str | None = None


class _Enrichment(msgspec.Struct, rename="camel"):
    key: str
    value: str
    endpoint_names: list[str]


class _Routing(msgspec.Struct, rename={"fallback_route": "fallbackRoute"}):
    endpoints: _Endpoints | None = None
    routes: list[_Route] | None = None
    fallback_route: _Fallback | None = None
    enrichments: list[_Enrichment] | None = None


class _Message(msgspec.Struct, rename="camel"):
    body: str | None = None
    app_properties: dict[str, str] | None = None
    system_properties: dict[str, str] | None = None


class _Test(msgspec.Struct, rename="camel"):
    message: _Message | None = None
    twin: dict[str, Any] | None = None
    routing_source: str | None = None
    route: _Route | None = None


class SampleMessage(NamedTuple):
    """A sample message for a test of routes, with its device's twin."""

    message: RoutableMessage
    twin: Mapping[str, Any] | None
    source: str


# ---- out


def route_json(route: HubRoute) -> dict[str, Any]:
    """Return the JSON of a route."""
    return {
        "name": route.name,
        "source": route.source.value,
        "condition": route.condition,
        "endpointNames": list(route.endpoints),
        "isEnabled": route.is_enabled,
    }


def fallback_json(routing: Routing) -> dict[str, Any]:
    """Return the fallback route."""
    return route_json(HubRoute(FALLBACK, routing.fallback.endpoints, is_enabled=routing.fallback.is_enabled))


def routing_json(routing: Routing) -> dict[str, Any]:
    """Return the routing, without endpoints that have no equivalent in Azure."""
    files = [one for one in routing.endpoints if isinstance(one, FileEndpoint)]
    return {
        "endpoints": {
            "serviceBusQueues": [],
            "serviceBusTopics": [],
            "eventHubs": [{"name": one.name} for one in routing.endpoints if isinstance(one, StreamEndpoint)],
            "storageContainers": [
                {"name": one.name, "containerName": one.folder, "fileNameFormat": one.file_name, "encoding": "JSON"}
                for one in files
            ],
            "cosmosDBSqlContainers": [],
        },
        "routes": [route_json(one) for one in routing.routes],
        "fallbackRoute": fallback_json(routing),
        "enrichments": [
            {"key": one.key, "value": one.value, "endpointNames": list(one.endpoints)} for one in routing.enrichments
        ],
    }


def mistake_json(error: SqlMistake) -> dict[str, Any]:
    """Return the error of a condition and its position."""
    at = {"line": 1, "column": error.where + 1}
    return {"message": str(error), "severity": "error", "location": {"start": at, "end": at}}


# ---- in


def check_as_shown(body: bytes, shown: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str | None]:
    """Return the routing and the ETag in a body, each if present.

    Its other members must match the current hub.
    """
    given = read_json(body, dict[str, Any], BodyInvalidError)
    properties = given.get("properties")
    if properties is not None and not isinstance(properties, dict):
        raise BodyInvalidError(detail="properties is not an object")
    routing = (properties or {}).get("routing")
    etag = given.pop("etag", None)
    plain = {**given, "properties": {name: one for name, one in (properties or {}).items() if name != "routing"}}
    if (member := _other(plain, shown, "")) is not None:
        raise BodyInvalidError(detail=f"{member} is changed by no call here, leave it was read")
    if routing is not None and not isinstance(routing, dict):
        raise BodyInvalidError(detail="properties.routing is not an object")
    return routing, etag if isinstance(etag, str) else None


def _other(values: Mapping[str, Any], shown: Mapping[str, Any], path: str) -> str | None:
    """Return the path of the first member that differs from the current value."""
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(shown.get(name), Mapping):
            if (found := _other(value, shown[name], f"{path}{name}.")) is not None:
                return found
        elif says_something(value) and value != shown.get(name):
            return f"{path}{name}"
    return None


def routing_of(values: Mapping[str, Any], routing: Routing, hub: str) -> Routing:
    """Return the requested routing plus the current endpoints that have no equivalent in Azure."""
    asked = _read(values, _Routing, "properties.routing.")
    endpoints: list[Endpoint] = [one for one in routing.endpoints if not isinstance(one, FileEndpoint | StreamEndpoint)]
    if asked.endpoints is not None:
        endpoints += [StreamEndpoint(one.name) for one in asked.endpoints.event_hubs or ()]
        endpoints += [_file(one) for one in asked.endpoints.storage_containers or ()]
    back = Fallback()
    if (said := asked.fallback_route) is not None:
        if said.source != "DeviceMessages" or said.condition not in {None, "true"} or said.name not in {None, FALLBACK}:
            raise BodyInvalidError(detail="fallbackRoute is $fallback of DeviceMessages with the condition true")
        back = Fallback(tuple(said.endpoint_names), said.is_enabled)
    added = tuple(Enrichment(one.key, one.value, tuple(one.endpoint_names)) for one in asked.enrichments or ())
    return Routing(tuple(endpoints), tuple(_route(one, hub) for one in asked.routes or ()), added, back)


def _file(container: _Container) -> FileEndpoint:
    if container.encoding is None or container.encoding.lower() != "json":
        raise BodyInvalidError(detail="a storage container supports only the encoding JSON")
    return FileEndpoint(container.name, container.container_name, container.file_name_format or TEMPLATE)


def _route(route: _Route, hub: str) -> HubRoute:
    source = configuration_changes.parse_source(route.source, hub)
    return HubRoute(route.name, tuple(route.endpoint_names), source, route.condition or "true", route.is_enabled)


def _read(values: Mapping[str, Any], kind: Any, path: str = "") -> Any:
    if (member := find_unread_member(values, kind)) is not None:
        raise BodyInvalidError(detail=f"{path}{member} is not served here, leave it out")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise BodyInvalidError(detail=str(error)) from error


def parse_test_all(body: bytes) -> SampleMessage:
    """Parse the sample message of a test of all routes."""
    return _tested(_read(read_json(body, dict[str, Any], BodyInvalidError), _Test))


def parse_test_one(body: bytes, hub: str) -> tuple[SampleMessage, HubRoute]:
    """Parse a request that tests one route: the sample message and the route."""
    asked: _Test = _read(read_json(body, dict[str, Any], BodyInvalidError), _Test)
    if asked.route is None:
        raise BodyInvalidError(detail="route is missing")
    return _tested(asked), _route(asked.route, hub)


def _tested(test: _Test) -> SampleMessage:
    said = test.message or _Message()
    made = route_matcher.imagined("device", said.body or "", said.app_properties or {}, said.system_properties or {})
    return SampleMessage(route_matcher.read(made), test.twin, test.routing_source or "DeviceMessages")
