"""Validated changes of a hub's routing configuration."""

import re
import shlex
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError
from birthmark.iothub.wire.stored_routing_configuration import (
    BUILT_IN,
    MAX_ENDPOINTS,
    MAX_ENRICHMENTS,
    MAX_ROUTES,
    TEMPLATE,
    Endpoint,
    Enrichment,
    FileEndpoint,
    HubRoute,
    RouteSource,
    Routing,
    ServerEndpoint,
)
from birthmark.message_routing.rules.conditions import RouteCondition, SqlMistake, parse_condition
from birthmark.mqtt.topics import is_valid_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FOLDER = re.compile(r"[a-z0-9](?!.*--)[a-z0-9-]{1,61}[a-z0-9]")
_TOKEN = re.compile(r"\{(\w*)\}")
_KEY = re.compile(r"[A-Za-z0-9_.$-]{1,100}")
_TOKENS = frozenset(_TOKEN.findall(TEMPLATE))
_OF_TOPIC = frozenset({"iothub", "device"})
_FILE_NAME = re.compile(r"[A-Za-z0-9._/{}-]{1,500}")
_MAX_TOPIC, _MAX_VALUE, _MAX_SHOWN = 256, 256, 100
_RESERVED = frozenset({BUILT_IN, "operationsmonitoringevents", "filenotifications", "$default"})
NOT_SERVED: Mapping[str, str] = {
    "digitaltwinchangeevents": "DigitalTwinChangeEvents",
    "devicejoblifecycleevents": "DeviceJobLifecycleEvents",
    "mqttbrokermessages": "MqttBrokerMessages",
}
_SOURCES: Mapping[str, RouteSource] = {one.value.lower(): one for one in RouteSource}


class RouteInvalidError(InvalidRequestError):
    """The route or enrichment is not valid."""

    code = "iothub.route_invalid"
    message = "The route is not valid: {detail}"
    cause = "A route of hub {hub} is not valid: {detail}."
    fix = (
        "Compare the route with the existing routes and endpoints: `birthmark hub route ls --hub {hub}`, `birthmark "
        "hub endpoint ls --hub {hub}`"
    )
    detail: str
    hub: str


class RouteConditionError(InvalidRequestError):
    """The condition cannot be parsed."""

    code = "iothub.route_condition"
    message = "The condition is not valid: {detail}"
    cause = "The condition of a route of hub {hub} is not valid: {detail}"
    fix = (
        "Test a condition before you save it: `birthmark hub route test --hub {hub} --condition 'temperature = "
        '"high"\' --property temperature=high`'
    )
    detail: str
    hub: str


class RouteSourceError(InvalidRequestError):
    """The message source is not supported."""

    code = "iothub.route_source_not_served"
    message = "Message source {source} is not supported"
    cause = "A route of hub {hub} has the source {source}. The supported sources are {served}."
    fix = "Use a supported source. List routes: `birthmark hub route ls --hub {hub}`"
    hub: str
    served: str = ", ".join(RouteSource)
    source: str


class EndpointInvalidError(InvalidRequestError):
    """The routing endpoint is not valid."""

    code = "iothub.endpoint_invalid"
    message = "The endpoint {endpoint} is not valid: {detail}"
    cause = "The endpoint {endpoint} of hub {hub} is not valid: {detail}."
    fix = (
        "Show the options of each endpoint type and the existing endpoints: `birthmark hub endpoint create --help; "
        "birthmark hub endpoint ls --hub {hub}`"
    )
    detail: str
    endpoint: str
    hub: str


class RouteNameTakenError(ConflictError):
    """The name is in use."""

    code = "iothub.route_name_taken"
    message = "The hub already has {what} named {name}"
    cause = "Hub {hub} already has {what} named {name}. Names are not case-sensitive."
    fix = (
        "Choose another name. List the names in use: `birthmark hub route ls --hub {hub}`, `birthmark hub endpoint ls "
        "--hub {hub}`"
    )
    hub: str
    name: str
    what: str


class UnknownRouteError(NotFoundError):
    """The route does not exist."""

    code = "iothub.unknown_route"
    message = "Route {route} does not exist"
    cause = "Hub {hub} has no route named {route}."
    fix = "List routes: `birthmark hub route ls --hub {hub}`"
    hub: str
    route: str


class UnknownEndpointError(NotFoundError):
    """The routing endpoint does not exist."""

    code = "iothub.unknown_endpoint"
    message = "Endpoint {endpoint} does not exist"
    cause = "Hub {hub} has no routing endpoint named {endpoint}."
    fix = "List endpoints: `birthmark hub endpoint ls --hub {hub}`"
    endpoint: str
    hub: str
    is_final: bool = False
    """Whether the failure is permanent for messages to this endpoint, so that a retry cannot succeed."""


class EndpointInUseError(ConflictError):
    """Routes use the endpoint."""

    code = "iothub.endpoint_in_use"
    message = "The endpoint {endpoint} is in use by {by}"
    cause = "The endpoint {endpoint} of hub {hub} cannot be deleted because it is in use by {by}."
    fix = (
        "Delete the routes and enrichments that use the endpoint, or assign another endpoint to them. To list the "
        "routes: `birthmark hub route ls --hub {hub}`"
    )
    by: str
    endpoint: str
    hub: str


class TooManyRoutesError(PolicyError):
    """The hub has the maximum number of routes or endpoints."""

    code = "iothub.too_many_routes"
    message = "The hub has the maximum of {most} {what}"
    cause = "Hub {hub} has the maximum of {most} {what}."
    fix = (
        "Delete an unused route, enrichment or endpoint. To list the routes and endpoints: `birthmark hub route ls "
        "--hub {hub}`, `birthmark hub endpoint ls --hub {hub}`"
    )
    hub: str
    most: int
    what: str


def parse_source(text: str, hub: str) -> RouteSource:
    """Return a source by its name, case-insensitive. Raise `RouteSourceError`."""
    if (found := _SOURCES.get(text.lower())) is None:
        raise RouteSourceError(hub=hub, source=NOT_SERVED.get(text.lower(), ascii(text[:_MAX_SHOWN])))
    return found


def compiled(condition: str, hub: str, read: Callable[[str], RouteCondition] = parse_condition) -> RouteCondition:
    """Return a compiled condition. Raise `RouteConditionError`."""
    try:
        return read(condition)
    except SqlMistake as error:
        raise RouteConditionError(hub=hub, detail=str(error)) from error


read_once = lru_cache(maxsize=MAX_ROUTES)(parse_condition)
"""Cached parser for stored conditions: each change of a hub's routing reads all of them, and few are new."""


def validate_routing(routing: Routing, hub: str) -> Routing:
    """Return a valid routing configuration. Raise the error of an invalid one."""
    _check_endpoints(routing, hub)
    for what, some, most in (
        ("routes", routing.routes, MAX_ROUTES),
        ("enrichments", routing.enrichments, MAX_ENRICHMENTS),
    ):
        if len(some) > most:
            raise TooManyRoutesError(hub=hub, most=most, what=what)
    names: set[str] = set()
    for route in routing.routes:
        _check_name(route.name, hub)
        if route.name.lower() in names:
            raise RouteNameTakenError(hub=hub, name=route.name, what="a route")
        names.add(route.name.lower())
        compiled(route.condition, hub, read_once)
        _check_led_to(routing, route.endpoints, hub)
    _check_led_to(routing, routing.fallback.endpoints, hub)
    for one in routing.enrichments:
        _check_enrichment(routing, one, hub)
    return routing


def _check_name(name: str, hub: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise RouteInvalidError(
            hub=hub, detail="a name must have 1 to 64 letters, digits, - . _, and start with a letter or digit"
        )


def _check_led_to(routing: Routing, names: tuple[str, ...], hub: str) -> None:
    if not names or len(set(names)) != len(names):
        raise RouteInvalidError(hub=hub, detail="it must have one or more endpoints, each only once")
    for name in names:
        if name not in {BUILT_IN, *(one.name for one in routing.endpoints)}:
            raise UnknownEndpointError(hub=hub, endpoint=name[:_MAX_SHOWN])


def _check_endpoints(routing: Routing, hub: str) -> None:
    if len(routing.endpoints) > MAX_ENDPOINTS:
        raise TooManyRoutesError(hub=hub, most=MAX_ENDPOINTS, what="endpoints")
    names: set[str] = set()
    for one in routing.endpoints:
        facts: dict[str, Any] = {"hub": hub, "endpoint": one.name[:64]}
        if _NAME.fullmatch(one.name) is None or one.name.lower() in _RESERVED:
            detail = (
                "a name must have 1 to 64 letters, digits, - . _, start with a letter or digit, and not be reserved"
            )
            raise EndpointInvalidError(hub=hub, endpoint=shlex.quote(ascii(one.name[:64])[1:-1]), detail=detail)
        if one.name.lower() in names:
            raise RouteNameTakenError(hub=hub, name=one.name, what="an endpoint")
        names.add(one.name.lower())
        if isinstance(one, FileEndpoint):
            _check_file(one, facts)
        if isinstance(one, ServerEndpoint):
            _check_topic(one, facts)


def _check_file(endpoint: FileEndpoint, facts: dict[str, Any]) -> None:
    if _FOLDER.fullmatch(endpoint.folder) is None:
        raise EndpointInvalidError(
            detail="a folder must have 3 to 63 lowercase letters, digits and single hyphens", **facts
        )
    text = endpoint.file_name
    tokens = _TOKEN.findall(text)
    bare = _TOKEN.sub("x", text)
    is_path = _FILE_NAME.fullmatch(text) is not None and not {"", ".", ".."} & set(bare.split("/"))
    if not is_path or set("{}") & set(bare) or any(part.startswith(".") for part in bare.split("/")):
        raise EndpointInvalidError(detail="a file name must be a path of letters, digits, - . _ and tokens", **facts)
    if set(tokens) != _TOKENS:
        raise EndpointInvalidError(detail=f"the name of a file has each of {TEMPLATE.replace('/', ' ')}", **facts)


def _check_topic(endpoint: ServerEndpoint, facts: dict[str, Any]) -> None:
    bare = _TOKEN.sub("x", endpoint.topic)
    if not set(_TOKEN.findall(endpoint.topic)) <= _OF_TOPIC or set("{}") & set(bare):
        raise EndpointInvalidError(detail="a topic takes {iothub} and {device} alone", **facts)
    if not (is_valid_name(bare) and bare.isprintable() and " " not in bare) or len(endpoint.topic) > _MAX_TOPIC:
        raise EndpointInvalidError(detail="a topic is one that can be published to, without wildcards", **facts)


def _check_enrichment(routing: Routing, enrichment: Enrichment, hub: str) -> None:
    is_good = (
        _KEY.fullmatch(enrichment.key) is not None
        and 0 < len(enrichment.value) <= _MAX_VALUE
        and enrichment.value.isprintable()
    )
    if not is_good:
        detail = (
            "the key of an enrichment must have up to 100 letters, digits, - . _ $, and its value up to 256 characters"
        )
        raise RouteInvalidError(hub=hub, detail=detail)
    if enrichment.value.startswith("$") and not (
        enrichment.value == "$iothubname" or enrichment.value.startswith(("$twin.tags.", "$twin.properties."))
    ):
        detail = "an enrichment value that starts with $ must be $iothubname, $twin.tags.… or $twin.properties.…"
        raise RouteInvalidError(hub=hub, detail=detail)
    _check_led_to(routing, enrichment.endpoints, hub)


# ---- changes


def with_endpoint(routing: Routing, endpoint: Endpoint, hub: str) -> Routing:
    """Return the configuration with an added endpoint. Raise `RouteNameTakenError` and validation errors."""
    return validate_routing(msgspec.structs.replace(routing, endpoints=(*routing.endpoints, endpoint)), hub)


def without_endpoint(routing: Routing, name: str, hub: str) -> Routing:
    """Return the routing without an endpoint. Raise `UnknownEndpointError`, `EndpointInUseError`."""
    if (known := routing.endpoint(name)) is None:
        raise UnknownEndpointError(hub=hub, endpoint=name[:_MAX_SHOWN])
    if by := routing.leads_to(known.name):
        raise EndpointInUseError(hub=hub, endpoint=known.name, by=", ".join(by[:3]))
    left = tuple(one for one in routing.endpoints if one is not known)
    return msgspec.structs.replace(routing, endpoints=left)


def with_route(routing: Routing, route: HubRoute, hub: str) -> Routing:
    """Return the configuration with an added route. Raise `RouteNameTakenError` and validation errors."""
    return validate_routing(msgspec.structs.replace(routing, routes=(*routing.routes, route)), hub)


def known_route(routing: Routing, name: str, hub: str) -> HubRoute:
    """Return a route by its name. Raise `UnknownRouteError`."""
    if (known := routing.route(name)) is None:
        raise UnknownRouteError(hub=hub, route=name[:_MAX_SHOWN])
    return known


def without_route(routing: Routing, name: str, hub: str) -> Routing:
    """Return the routing without a route. Raise `UnknownRouteError`."""
    known = known_route(routing, name, hub)
    return msgspec.structs.replace(routing, routes=tuple(one for one in routing.routes if one is not known))


def with_route_enabled(routing: Routing, name: str, hub: str, *, is_enabled: bool) -> Routing:
    """Return the configuration with a route enabled or disabled. Raise `UnknownRouteError`."""
    known = known_route(routing, name, hub)
    made = msgspec.structs.replace(known, is_enabled=is_enabled)
    return msgspec.structs.replace(routing, routes=tuple(made if one is known else one for one in routing.routes))


def with_enrichment(routing: Routing, enrichment: Enrichment, hub: str) -> Routing:
    """Return the configuration with an enrichment, which replaces one of the same key. Raise validation errors."""
    others = tuple(one for one in routing.enrichments if one.key != enrichment.key)
    return validate_routing(msgspec.structs.replace(routing, enrichments=(*others, enrichment)), hub)


def without_enrichment(routing: Routing, key: str, hub: str) -> Routing:
    """Return the routing without an enrichment. Raise `RouteInvalidError`."""
    left = tuple(one for one in routing.enrichments if one.key != key)
    if len(left) == len(routing.enrichments):
        raise RouteInvalidError(hub=hub, detail=f"no enrichment has the key {key[:_MAX_SHOWN]!a}")
    return msgspec.structs.replace(routing, enrichments=left)
