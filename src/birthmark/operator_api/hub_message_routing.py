"""Operator API of message routing: endpoints, routes, queued messages and dead letters."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.stream_partitions_and_positions import (
    BEGINNING,
    PositionInvalidError,
    Positions,
    parse_positions,
)
from birthmark.errors import add_fix_command, shell_word
from birthmark.events.webhook_url_redaction import host_only
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.routes import configuration_changes, route_matcher
from birthmark.iothub.rules.routes.configuration_changes import EndpointInvalidError
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.message_routing import Routes
from birthmark.iothub.wire.stored_routing_configuration import (
    FALLBACK,
    TEMPLATE,
    Enrichment,
    Fallback,
    FileEndpoint,
    HubRoute,
    Routing,
    ServerEndpoint,
    StreamEndpoint,
    WebhookEndpoint,
)
from birthmark.iothub.wire.stored_routing_configuration import Endpoint as HubEndpoint
from birthmark.message_routing.failed_delivery_queue import DeliveryPartition
from birthmark.message_routing.rules.conditions import RoutedSubject
from birthmark.message_routing.sinks.local_streams import StreamRecord
from birthmark.net.fair_scheduler import wait_for_caller_turn
from birthmark.operator_api.api_router import ApiRequest, Endpoint, LineStream, Rows
from birthmark.operator_api.message_stream_pages import StreamPosition, StreamQuery, pages
from birthmark.operator_api.name_validation import OperatorRequestError, parse_name
from birthmark.outbound.http_client import EXAMPLE, UrlInvalidError
from birthmark.outbound.ssrf_guard import PlainRefusedError
from birthmark.store import from_micros, to_micros
from birthmark.untrusted_json_and_text import readable

_MOST_SHOWN = 20


class NewEndpoint(msgspec.Struct):
    """A routing endpoint: a webhook `url`, a `folder`, a `stream`, or a `server` with its `topic`."""

    name: str
    url: str | None = None
    folder: str | None = None
    file_name: str = TEMPLATE
    stream: bool = False
    server: str | None = None
    topic: str = "{iothub}.{device}"


class NewRoute(msgspec.Struct):
    """A route: messages of a source that match a condition go to the named endpoints."""

    name: str
    endpoints: list[str]
    source: str = "DeviceMessages"
    condition: str = "true"
    enabled: bool = True


class RouteSwitch(msgspec.Struct):
    """Whether a route is enabled."""

    enabled: bool


class NewFallback(msgspec.Struct):
    """Fallback route for messages that no other route matches."""

    endpoints: list[str]
    enabled: bool = True


class NewEnrichment(msgspec.Struct):
    """A property that is added to messages for endpoints."""

    value: str
    endpoints: list[str]


class RouteTest(msgspec.Struct):
    """A test message; with a condition, it tests the condition, otherwise all routes."""

    source: Annotated[str, msgspec.Meta(max_length=64)] = "DeviceMessages"
    condition: str | None = None
    device: Annotated[str, msgspec.Meta(max_length=256)] = "device"
    body: str = ""
    properties: dict[str, str] = {}
    system: dict[str, str] = {}
    twin: dict[str, Any] | None = None


def endpoints(iothub: IotHub) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub endpoint`, `hub route` and `hub enrichment`."""
    rule = Right.ADMINISTER
    of_hub = "/hubs/{name}"
    each, one = f"{of_hub}/endpoints", f"{of_hub}/endpoints/{{endpoint}}"
    added, key = f"{of_hub}/enrichments", f"{of_hub}/enrichments/{{key}}"
    where, what = _Endpoints(iothub), _Routes(iothub)
    every, route = f"{of_hub}/routes", f"{of_hub}/routes/{{route}}"
    return [
        Endpoint("GET", each, Right.READ, "List routing endpoints.", where.listing),
        Endpoint("POST", each, rule, "Create a routing endpoint.", where.add, NewEndpoint, status=201),
        Endpoint("DELETE", one, rule, "Delete a routing endpoint.", where.remove, status=204),
        Endpoint(
            "GET",
            f"{one}/stream",
            Right.READ,
            "Read the stream of an endpoint, one JSON line per message.",
            where.read,
            query=StreamQuery,
        ),
        Endpoint(
            "PUT",
            f"{one}/groups/{{group}}",
            Right.OPERATE,
            "Store the position of a consumer group.",
            where.note,
            StreamPosition,
            status=204,
        ),
        Endpoint("GET", every, Right.READ, "List routes.", what.listing),
        Endpoint("POST", every, rule, "Create a route.", what.add, NewRoute, status=201),
        Endpoint("GET", route, Right.READ, "Return a route with its queued deliveries and dead letters.", what.show),
        Endpoint("PATCH", route, rule, "Enable or disable a route.", what.switch, RouteSwitch),
        Endpoint("DELETE", route, rule, "Delete a route and its queued deliveries.", what.remove, status=204),
        Endpoint(
            "POST", f"{route}/retry", Right.OPERATE, "Resend the dead letters of a route.", what.retry, status=204
        ),
        Endpoint("PUT", f"{of_hub}/fallback", rule, "Configure the fallback route.", what.fallback, NewFallback),
        Endpoint("POST", f"{of_hub}/route-test", Right.READ, "Test routes with a message.", what.test, RouteTest),
        Endpoint("GET", added, Right.READ, "List message enrichments.", what.enrichments),
        Endpoint("PUT", key, rule, "Set a message enrichment.", what.enrich, NewEnrichment),
        Endpoint("DELETE", key, rule, "Delete a message enrichment.", what.plain, status=204),
    ]


class _Endpoints:
    def __init__(self, iothub: IotHub) -> None:
        self._hubs, self._routes = iothub.hubs, iothub.routes

    async def listing(self, request: ApiRequest) -> Rows:
        routing = await self._routes.routing(self._hubs.by_name(request["name"]))
        return Rows([_endpoint_view(routing, one) for one in routing.endpoints])

    async def add(self, request: ApiRequest) -> Any:
        hub = self._hubs.by_name(request["name"])
        made = _endpoint_of(request.body, hub.name)
        again = f"birthmark hub endpoint create {shell_word(made.name[:64])} --webhook {EXAMPLE} --hub {hub.name}"
        with add_fix_command(again, UrlInvalidError, PlainRefusedError):
            kept = await self._routes.change(
                *(hub, lambda known: configuration_changes.with_endpoint(known, made, hub.name)),
                *("iothub.endpoint_add", made.name),
                actor=request.actor,
                kind=made.__struct_config__.tag,
            )
        shown = _endpoint_view(kept.routing, made)
        return shown | {"secret": kept.secrets[made.name]} if made.name in kept.secrets else shown

    async def remove(self, request: ApiRequest) -> None:
        hub, name = self._hubs.by_name(request["name"]), request["endpoint"]
        await self._routes.change(
            *(hub, lambda known: configuration_changes.without_endpoint(known, name, hub.name)),
            *("iothub.endpoint_remove", name),
            actor=request.actor,
        )

    async def read(self, request: ApiRequest) -> LineStream:
        hub = self._hubs.by_name(request["name"])
        stream, name = await self._routes.stream(f"{hub.name}/{request['endpoint']}"), request["endpoint"]
        with add_fix_command(f"birthmark hub endpoint read {name} --since 10m --hub {hub.name}", PositionInvalidError):
            return LineStream(pages(stream, await _beginning(stream, request.query), request.query, _entry_view))

    async def note(self, request: ApiRequest) -> None:
        hub, place = self._hubs.by_name(request["name"]), parse_positions(request.body.after)
        stream = await self._routes.stream(f"{hub.name}/{request['endpoint']}")
        await stream.set_position(parse_name(request["group"]), place)


class _Routes:
    def __init__(self, iothub: IotHub) -> None:
        self._hubs, self._routes = iothub.hubs, iothub.routes

    async def listing(self, request: ApiRequest) -> Rows:
        hub = self._hubs.by_name(request["name"])
        routing, lanes = await self._routes.routing(hub), await self._routes.lanes(hub)
        rows = [_route_view(one, lanes) for one in routing.routes]
        return Rows([*rows, _route_view(_fallback_of(routing), lanes)])

    async def add(self, request: ApiRequest) -> Any:
        hub, body = self._hubs.by_name(request["name"]), request.body
        source = configuration_changes.parse_source(body.source, hub.name)
        made = HubRoute(body.name, tuple(body.endpoints), source, body.condition, body.enabled)
        await self._change(
            request, hub, lambda known: configuration_changes.with_route(known, made, hub.name), "add", made.name
        )
        return _route_view(made, {})

    async def show(self, request: ApiRequest) -> Any:
        hub, name = self._hubs.by_name(request["name"]), request["route"]
        routing = await self._routes.routing(hub)
        route = (
            _fallback_of(routing) if name == FALLBACK else configuration_changes.known_route(routing, name, hub.name)
        )
        lanes = await self._routes.lanes(hub)
        aside = await self._routes.problems(hub, route.name, _MOST_SHOWN)
        lag_s = round(await self._routes.lag_s(hub), 3)
        return _route_view(route, lanes) | {"lag_s": lag_s, "aside": list(aside)}

    async def switch(self, request: ApiRequest) -> Any:
        hub, name, is_enabled = self._hubs.by_name(request["name"]), request["route"], request.body.enabled
        made = await self._change(
            *(
                request,
                hub,
                lambda known: configuration_changes.with_route_enabled(known, name, hub.name, is_enabled=is_enabled),
            ),
            *("enable" if is_enabled else "disable", name),
        )
        return _route_view(configuration_changes.known_route(made, name, hub.name), await self._routes.lanes(hub))

    async def remove(self, request: ApiRequest) -> None:
        hub, name = self._hubs.by_name(request["name"]), request["route"]
        await self._change(
            request, hub, lambda known: configuration_changes.without_route(known, name, hub.name), "remove", name
        )

    async def retry(self, request: ApiRequest) -> None:
        await self._routes.retry(self._hubs.by_name(request["name"]), request["route"], actor=request.actor)

    async def fallback(self, request: ApiRequest) -> Any:
        hub, body = self._hubs.by_name(request["name"]), request.body
        made = Fallback(tuple(body.endpoints), body.enabled)

        def decide(routing: Routing) -> Routing:
            return configuration_changes.validate_routing(msgspec.structs.replace(routing, fallback=made), hub.name)

        routing = await self._change(request, hub, decide, "change", FALLBACK)
        return _route_view(_fallback_of(routing), await self._routes.lanes(hub))

    async def test(self, request: ApiRequest) -> Any:
        hub, body = self._hubs.by_name(request["name"]), request.body
        return await test_route(self._routes, hub, body)

    async def enrichments(self, request: ApiRequest) -> Rows:
        routing = await self._routes.routing(self._hubs.by_name(request["name"]))
        return Rows([msgspec.to_builtins(one) for one in routing.enrichments])

    async def enrich(self, request: ApiRequest) -> Any:
        hub, body = self._hubs.by_name(request["name"]), request.body
        made = Enrichment(request["key"], body.value, tuple(body.endpoints))
        await self._change(
            request, hub, lambda known: configuration_changes.with_enrichment(known, made, hub.name), "enrich", made.key
        )
        return msgspec.to_builtins(made)

    async def plain(self, request: ApiRequest) -> None:
        hub, key = self._hubs.by_name(request["name"]), request["key"]
        await self._change(
            request, hub, lambda known: configuration_changes.without_enrichment(known, key, hub.name), "enrich", key
        )

    async def _change(self, request: ApiRequest, hub: Hub, decide: Any, what: str, subject: str) -> Routing:
        action = f"iothub.route_{what}"
        return (await self._routes.change(hub, decide, action, subject, actor=request.actor)).routing


async def test_route(routes: Routes, hub: Hub, test: RouteTest) -> Mapping[str, Any]:
    """Return the matching routes of a message with their endpoints, or whether a condition matches."""
    source = configuration_changes.parse_source(test.source, hub.name)
    await wait_for_caller_turn()
    message = route_matcher.read(route_matcher.imagined(test.device, test.body, test.properties, test.system))
    if test.condition is not None:
        condition = configuration_changes.compiled(test.condition, hub.name)
        return {"holds": route_matcher.is_match(condition, RoutedSubject(message, test.twin), "test")}
    if (ready := routes.ready(hub.name)) is None:
        return {"routes": []}
    found = route_matcher.matching(ready, source, message, test.twin)
    return {"routes": [{"route": name, "endpoints": list(to)} for name, to in found]}


def _endpoint_of(body: NewEndpoint, hub: str) -> HubEndpoint:
    given = [body.url is not None, body.folder is not None, body.stream, body.server is not None]
    if sum(given) != 1:
        detail = "it is one of a webhook, a folder, a stream and a server"
        raise EndpointInvalidError(hub=hub, endpoint=ascii(body.name[:64])[1:-1], detail=detail)
    if body.url is not None:
        return WebhookEndpoint(body.name, body.url)
    if body.folder is not None:
        return FileEndpoint(body.name, body.folder, body.file_name)
    return StreamEndpoint(body.name) if body.server is None else ServerEndpoint(body.name, body.server, body.topic)


def _endpoint_view(routing: Routing, endpoint: HubEndpoint) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(endpoint)
    if isinstance(endpoint, WebhookEndpoint):
        shown["url"] = host_only(endpoint.url)
    to = ": ".join(str(shown[name]) for name in ("url", "folder", "server", "topic") if name in shown)
    return {**shown, "to": to, "routes": list(routing.leads_to(endpoint.name))}


def _route_view(route: HubRoute, lanes: Mapping[tuple[str, str], DeliveryPartition]) -> dict[str, Any]:
    own = [lane for (name, _), lane in lanes.items() if name == route.name]
    counts = {"waiting": sum(one.count - one.dead for one in own), "put_aside": sum(one.dead for one in own)}
    return {**msgspec.to_builtins(route), **counts}


def _fallback_of(routing: Routing) -> HubRoute:
    return HubRoute(FALLBACK, routing.fallback.endpoints, is_enabled=routing.fallback.is_enabled)


async def _beginning(stream: SqlStream[StreamRecord], query: StreamQuery) -> Positions:
    """Return the start positions; default: the beginning."""
    if query.after is not None:
        return parse_positions(query.after)
    if query.group is not None and (known := await stream.position(parse_name(query.group))) is not None:
        return known
    if query.since is None:
        return BEGINNING
    if query.since.tzinfo is None:
        raise OperatorRequestError(detail="`since` has no time zone")
    return await stream.find(max(0, to_micros(query.since)))


def _entry_view(record: StreamRecord) -> dict[str, Any]:
    body, encoding = readable(record.body)
    came = from_micros(record.enqueued_micros).isoformat()
    return {"device": record.device_id, "came": came, "body": body, "encoding": encoding}
