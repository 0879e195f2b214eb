"""Message routing of hubs: configuration, and routing of messages by the rules engine.

Telemetry is read from the hub's telemetry stream by a separate consumer group; events of twins, devices and
connections from the stream of `telling`. One worker serves all routes. A route receives each message at least once.
"""

import asyncio
import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.stream_partitions_and_positions import BEGINNING
from birthmark.broker.store import drop_stream
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, PolicyError
from birthmark.iothub import store
from birthmark.iothub.domain_events import HubDeleted, RoutingChanged
from birthmark.iothub.model import Hub, TelemetryMessage, Twin
from birthmark.iothub.rules.routes import (
    configuration_changes,
    endpoint_message_format,
    event_messages,
    route_matcher,
)
from birthmark.iothub.rules.routes.configuration_changes import EndpointInvalidError, UnknownEndpointError
from birthmark.iothub.rules.routes.route_matcher import PreparedRouting
from birthmark.iothub.service.hubs_and_authorization import Hubs, UnknownHubError
from birthmark.iothub.service.routing_events import RoutingEvents, stream_name
from birthmark.iothub.service.telemetry_streams import Telemetry
from birthmark.iothub.wire.stored_routing_configuration import (
    FALLBACK,
    Endpoint,
    FileEndpoint,
    HubRoute,
    RouteSource,
    Routing,
    ServerEndpoint,
    StoredRouting,
    StreamEndpoint,
    WebhookEndpoint,
)
from birthmark.iothub.wire.twins import section_json
from birthmark.message_routing import store as letters
from birthmark.message_routing.delivery_model import Delivery, MessageServer, Sink
from birthmark.message_routing.engine import RuleEngine
from birthmark.message_routing.failed_delivery_queue import DeliveryPartition, Queue, owner_of
from birthmark.message_routing.sinks.local_streams import StreamRecord
from birthmark.outbound.webhook_signature import SECRET_BYTES, secret_of
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.pagination import every
from birthmark.store.reloading_cache import ReloadingCache
from birthmark.supervised_tasks import Leads, always, cancel_and_wait, start_supervised, told

CheckUrl = Callable[[str], object]
Record = Callable[[BirthmarkError], object]
"""Logs a routing error."""
GROUP = " routes"
"""Name of the engine's offset in a stream; no consumer group can have it."""
KEEP_S, KEEP_BYTES = 24 * 3600, 1024 * 1024 * 1024
"""Retention of streams that routes write to, by age and size."""
_LOOK_S, _TRIM_EVERY_S = 60.0, 60.0
_MICROS = 1_000_000
_GENERATION_BYTES, _ATTEMPTS = 8, 8


class RouteFailedError(PolicyError):
    """The endpoint did not accept a routed message."""

    code = "iothub.route_failed"
    cause = "The endpoint {endpoint} did not accept a message of the route {route} of hub {hub}: {reason}."
    fix = (
        "Fix the receiver, then retry: `birthmark hub route retry {route} --hub {hub}`. Show waiting messages: "
        "`birthmark hub route show {route} --hub {hub}`"
    )
    device_id: str
    endpoint: str
    hub: str
    reason: str
    route: str


class _Part(NamedTuple):
    """A source stream of an engine."""

    hub: str
    generation: str
    is_telemetry: bool


class _OfHub:
    """All routes of a hub as one rule of the engine: a message is sent to each endpoint once."""

    def __init__(self, routes: "Routes", part: _Part) -> None:
        self._routes, self._part = routes, part

    @property
    def name(self) -> str:
        return f"hub:{self._part.hub}:{'messages' if self._part.is_telemetry else 'events'}"

    async def decide(self, message: TelemetryMessage) -> Sequence[Delivery]:
        """Return the deliveries of a message."""
        ready = self._routes.ready(self._part.hub)
        if ready is None or ready.generation != self._part.generation:
            return ()
        twin = await self._routes.twin(ready.hub, message) if ready.needs_twin else None
        found = route_matcher.destinations(ready, route_matcher.source_of(message), route_matcher.read(message), twin)
        if not found:
            return ()
        body = endpoint_message_format.shown_body(message)
        return [self._letter(ready, message, body, twin, name, route) for name, route in found.items()]

    def _letter(  # noqa: PLR0917 - one field per parameter
        self,
        ready: PreparedRouting,
        message: TelemetryMessage,
        shown: Any,
        twin: Mapping[str, Any] | None,
        name: str,
        route: str,
    ) -> Delivery:
        endpoint = ready.kept.routing.endpoint(name)
        assert endpoint is not None  # noqa: S101 - a stored routing names only existing ones
        address: dict[str, Any] = {"hub": ready.hub, "endpoint": name}
        if isinstance(endpoint, FileEndpoint):
            address |= {
                "file": endpoint_message_format.file_of(endpoint.file_name, ready.hub, message),
                "separator": "\n",
            }
        elif isinstance(endpoint, ServerEndpoint):
            address["topic"] = endpoint_message_format.topic_of(endpoint.topic, ready.hub, message.device_id)
        elif isinstance(endpoint, StreamEndpoint):
            address |= {"stream": f"{ready.hub}/{name}", "key": message.device_id}
        body = endpoint_message_format.envelope(message, shown, ready.enrichments(name), ready.hub, twin)
        origin = {"device": message.device_id, "route": route}
        return Delivery(
            route_matcher.lane_of(ready.hub, route, name), route_matcher.kind_of(endpoint), address, body, origin
        )


class Routes:
    """Routes of all hubs. Run `load` before use, and `begin` before delivery."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        hubs: Hubs,
        *,
        telemetry: Telemetry,
        tells: RoutingEvents,
        leads: Leads = always,
        record: Record = lambda _: None,
    ) -> None:
        """`record` logs routing errors."""
        self._database, self.clock, self._entropy = database, clock, entropy
        self._hubs, self._telemetry, self.telling = hubs, telemetry, tells
        self._ready: dict[str, PreparedRouting] = {}
        self._streams: dict[tuple[str, str, str], SqlStream[StreamRecord]] = {}
        self._changed = asyncio.Event()
        self._saying: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._sequence = 0
        self._sent: Counter[str] = Counter()
        self.engines: dict[_Part, RuleEngine[TelemetryMessage]] = {}
        self._loading = ReloadingCache(database, self._read, RoutingChanged, HubDeleted)
        self._queue: Queue | None = None
        self._sinks: Mapping[str, Sink] = {}
        self._check_url: CheckUrl = lambda _: None
        self._servers: Mapping[str, MessageServer] = {}
        self.leads, self.record = leads, record

    def begin(
        self, queue: Queue, sinks: Mapping[str, Sink], *, check_url: CheckUrl, servers: Mapping[str, MessageServer]
    ) -> None:
        """Set the delivery queue and the sinks."""
        self._queue, self._sinks = queue, sinks
        self._check_url, self._servers = check_url, servers
        queue.serve(sinks, self.failed)

    # ---- stored routings

    async def load(self) -> None:
        """Compile the routes of every hub."""
        await self._loading.load()

    async def stop(self) -> None:
        """Stop the background reload."""
        await self._loading.stop()

    async def _read(self) -> None:
        found = [store.kept_of(row) for row in await every(self._database, store.ROUTINGS_PAGE, "hub")]
        known = self._ready
        self._ready = {
            one.hub: known[one.hub]
            if one.hub in known and known[one.hub].kept == one
            else route_matcher.prepare_routing(one)
            for one in found
        }
        self.telling.set_requested({one.hub: one.sources for one in self._ready.values()})
        there = {
            (one.hub, one.generation, endpoint.name)
            for one in self._ready.values()
            for endpoint in one.kept.routing.endpoints
        }
        self._streams = {key: stream for key, stream in self._streams.items() if key in there}
        self._changed.set()

    def ready(self, hub: str) -> PreparedRouting | None:
        """Return a hub's compiled routes; None if it never had any."""
        return self._ready.get(hub)

    async def get(self, hub: Hub) -> StoredRouting | None:
        """Return a hub's stored routes; None if it never had any."""
        row = await self._database.one(store.GET_ROUTING, hub=hub.name)
        return None if row is None else store.kept_of(row)

    async def routing(self, hub: Hub) -> Routing:
        """Return a hub's routes, endpoints and enrichments."""
        known = await self.get(hub)
        return Routing() if known is None else known.routing

    async def change(
        self,
        hub: Hub,
        decide: Callable[[Routing], Routing],
        action: str,
        subject: str,
        *,
        actor: str,
        revision: int | None = None,
        **told: object,
    ) -> StoredRouting:
        """Update a hub's routes with `decide`; `revision` is the expected one.

        Raise the errors of `decide`, `EndpointInvalidError`, and the refusal of a URL.
        """

        async def once() -> StoredRouting:
            known = await self.get(hub)
            before = Routing() if known is None else known.routing
            if revision is not None and revision != (0 if known is None else known.revision):
                raise ChangedMeanwhileError(what="The routing of the hub")
            made = decide(before)
            self._check(hub, before, made)
            one = self._kept(hub, known, made)
            changes = await self._writing(hub, known, one)
            changes.audit(actor, action, subject, hub=hub.name, **told)
            await self._loading.committed(self._database.commit(changes.event(RoutingChanged(hub.name))))
            return one

        return await retry_on_conflict(once, attempts=_ATTEMPTS if revision is None else 1)

    def _check(self, hub: Hub, before: Routing, routing: Routing) -> None:
        for one in routing.endpoints:
            if one in before.endpoints:
                continue
            if isinstance(one, WebhookEndpoint):
                self._check_url(one.url)
            if isinstance(one, ServerEndpoint) and one.server not in self._servers:
                detail = f"the configuration has no [servers.{one.server[:64]}]"
                raise EndpointInvalidError(hub=hub.name, endpoint=one.name, detail=detail)

    def _kept(self, hub: Hub, routing: StoredRouting | None, changed: Routing) -> StoredRouting:
        secrets: dict[str, str] = {}
        for one in changed.endpoints:
            if isinstance(one, WebhookEndpoint):
                old = (
                    None
                    if routing is None or routing.routing.endpoint(one.name) != one
                    else routing.secrets.get(one.name)
                )
                secrets[one.name] = old or secret_of(self._entropy.token(SECRET_BYTES))
        generation = self._entropy.token(_GENERATION_BYTES).hex() if routing is None else routing.generation
        return StoredRouting(
            hub.name, generation, (0 if routing is None else routing.revision) + 1, changed, secrets, self.clock.now()
        )

    async def _writing(self, hub: Hub, routing: StoredRouting | None, made: StoredRouting) -> Changes:
        row = store.routing_row(made)
        changed = ChangedMeanwhileError(what="The routing of the hub")
        if routing is None:
            gone = UnknownHubError(host=hub.host)
            changes = Changes().run(store.HUB_IS_THERE, expect=1, otherwise=gone, key_name=hub.name)
            changes.run(store.ADD_ROUTING, expect=1, otherwise=changed, **row)
        else:
            values = {name: row[name] for name in ("document", "secrets", "revision", "modified_at")}
            key = {"key_hub": hub.name, "key_generation": routing.generation, "key_revision": routing.revision}
            changes = Changes().run(store.CHANGE_ROUTING, expect=1, otherwise=changed, **key, **values)
        before = Routing() if routing is None else routing.routing
        await self._begin_reading(changes, hub, before.sources, made.routing.sources)
        left = {one.name for one in made.routing.routes}
        for route in before.routes:
            if route.name not in left and self._queue is not None:
                changes.merge(self._queue.deletion_changes(route_matcher.rule_of(hub.name, route.name)))
        for one in before.endpoints:
            if isinstance(one, StreamEndpoint) and one not in made.routing.endpoints:
                changes.merge(drop_stream(_stream_name(hub.name, one.name)))
        return changes

    async def _begin_reading(
        self, changes: Changes, hub: Hub, before: frozenset[RouteSource], after: frozenset[RouteSource]
    ) -> None:
        """Start reading newly routed sources at their end: messages before the first route are not routed."""
        if RouteSource.MESSAGES in after and RouteSource.MESSAGES not in before:
            stream = self._telemetry.stream_of(hub)
            changes.merge(stream.position_changes(GROUP, await stream.end()))
        events = frozenset(RouteSource) - {RouteSource.MESSAGES}
        if after & events and not before & events:
            told = self.telling.stream(hub.name)
            changes.merge(told.position_changes(GROUP, await told.end()))

    async def going_with(self, hub: Hub) -> Changes:
        """Return the changes that delete all data of a hub's routes, for the commit that deletes the hub."""
        changes = drop_stream(stream_name(hub.name))
        changes.run(letters.DELETE_OF, first=f"hub:{hub.name}:", last=f"hub:{hub.name};")
        known = await self.get(hub)
        for one in () if known is None else known.routing.endpoints:
            changes.merge(drop_stream(_stream_name(hub.name, one.name)))
        return changes

    # ---- user requests

    async def lanes(self, hub: Hub) -> Mapping[tuple[str, str], DeliveryPartition]:
        """Return queued deliveries and dead letters, by route and endpoint."""
        if self._queue is None:
            return {}
        found: dict[tuple[str, str], DeliveryPartition] = {}
        for name in (FALLBACK, *(one.name for one in (await self.routing(hub)).routes)):
            rule = route_matcher.rule_of(hub.name, name)
            for lane, known in (await self._queue.counts(rule)).items():
                route, _, endpoint = lane.rpartition("/")
                if route == rule:
                    found[name, endpoint] = known
        return found

    async def problems(self, hub: Hub, route: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the dead letters of a route with their errors, oldest first."""
        if self._queue is None:
            return []
        found = await self._queue.dead(route_matcher.rule_of(hub.name, route), "", limit)
        return [
            {"endpoint": one.lane.rpartition("/")[2], "device": one.origin.get("device", ""), "problem": one.problem}
            | {"dead_at": None if one.dead_at is None else one.dead_at.isoformat(), "tries": one.tries}
            for one in found
        ]

    async def retry(self, hub: Hub, route: str, *, actor: str) -> None:
        """Retry the dead letters of a route. Raise `UnknownRouteError`."""
        await self._known(hub, route)
        if self._queue is not None:
            changes = self._queue.retry_changes(route_matcher.rule_of(hub.name, route))
            await self._database.commit(changes.audit(actor, "iothub.route_retry", route, hub=hub.name))
            self._queue.wake()

    async def _known(self, hub: Hub, route: str) -> HubRoute | None:
        if route == FALLBACK:
            return None
        return configuration_changes.known_route(await self.routing(hub), route, hub.name)

    async def lag_s(self, hub: Hub) -> float:
        """Return the age of the oldest unrouted message in seconds, 0 if there is none."""
        ready = self._ready.get(hub.name)
        if ready is None:
            return 0.0
        oldest: list[int] = []
        streams = [self._telemetry.stream_of(hub)] if RouteSource.MESSAGES in ready.sources else []
        if ready.sources - {RouteSource.MESSAGES}:
            streams.append(self.telling.stream(hub.name))
        for stream in streams:
            page = await stream.read(await stream.position(GROUP) or BEGINNING, 1)
            oldest += [one.enqueued_micros for one in page.items]
        return max(0.0, (self.clock.micros() - min(oldest)) / _MICROS) if oldest else 0.0

    def outcomes(self) -> Mapping[tuple[str, str], int]:
        """Return the number of messages sent, dropped and dead-lettered per hub since this worker started."""
        found: Counter[tuple[str, str]] = Counter()
        queue = self._queue
        if queue is None:
            return found
        sent = self._sent + queue.carried
        for outcome, by_lane in (("sent", sent), ("dropped", queue.dropped), ("put_aside", queue.aside)):
            for lane, count in by_lane.items():
                kind, _, rest = owner_of(lane).partition(":")
                if kind == "hub":
                    found[rest, outcome] += count
        return found

    async def lags(self) -> Mapping[str, float]:
        """Return the routing lag in seconds of each hub with routes."""
        there = {one.name: one for one in self._hubs.all()}
        wanted = [there[one.hub] for one in self._ready.values() if one.sources and one.hub in there]
        return {hub.name: await self.lag_s(hub) for hub in wanted}

    def secret(self, hub: str, endpoint: str) -> str | None:
        """Return the signing secret of an endpoint, or None."""
        known = self._ready.get(hub)
        return None if known is None else known.kept.secrets.get(endpoint)

    # ---- outgoing messages

    def endpoint_of(self, delivery: Delivery) -> Endpoint:
        """Return the current endpoint of a delivery. Raise `UnknownEndpointError`, which is permanent."""
        hub, name = delivery.address["hub"], delivery.address["endpoint"]
        known = self._ready.get(hub)
        found = None if known is None else known.kept.routing.endpoint(name)
        if found is None or route_matcher.kind_of(found) != delivery.kind:
            raise UnknownEndpointError(hub=hub, endpoint=name, is_final=True)
        return found

    async def stream(self, name: str) -> SqlStream[StreamRecord]:
        """Return the stream of an endpoint, by HUB/ENDPOINT. Raise `UnknownEndpointError`."""
        hub, _, endpoint = name.partition("/")
        known = self._ready.get(hub)
        found = None if known is None else known.kept.routing.endpoint(endpoint)
        if known is None or not isinstance(found, StreamEndpoint):
            raise UnknownEndpointError(hub=hub, endpoint=endpoint[:100], is_final=True)
        key = (hub, known.generation, found.name)
        if (stream := self._streams.get(key)) is None:
            made = SqlStream(_stream_name(hub, found.name), StreamRecord, self._database, self.clock)
            stream = self._streams[key] = made
        return stream

    async def twin(self, hub: str, message: TelemetryMessage) -> Mapping[str, Any]:
        """Return the sender's twin for conditions and enrichments."""
        module = message.system.get("iothub-connection-module-id")
        name = message.device_id if module is None else f"{message.device_id}/{module}"
        row = await self._database.one(store.GET_TWIN, hub=hub, device_id=name)
        found = Twin(hub, name) if row is None else store.twin_of(row)
        return {
            "tags": found.tags,
            "properties": {"desired": section_json(found.desired), "reported": section_json(found.reported)},
        }

    async def failed(self, delivery: Delivery, error: BirthmarkError) -> None:
        """Log a permanent delivery failure."""
        self.record(
            RouteFailedError(
                hub=delivery.address["hub"],
                route=shlex.quote(delivery.origin["route"]),
                endpoint=delivery.address["endpoint"],
                device_id=delivery.origin["device"],
                reason=error.explain_cause().removesuffix("."),
            )
        )

    # ---- connection events

    async def write_connection_event(self, hub: str, name: str, *, is_connected: bool) -> None:
        """Write a connect or disconnect event of a device or module, if a route requests it.

        An unavailable database does not block the device: the missing event is logged.
        """
        self.schedule_connection_event(hub, name, is_connected=is_connected)
        if (saying := self._saying.get((hub, name))) is not None:
            await asyncio.wait((saying,))

    def schedule_connection_event(self, hub: str, name: str, *, is_connected: bool) -> None:
        """Write a connection event in the background; `wait_for_events` waits for it."""
        if self.telling.wants(hub, RouteSource.CONNECTIONS):
            before = self._saying.get((hub, name))
            self._sequence = max(self._sequence + 1, self.clock.micros())
            message = event_messages.connection(hub, name, self._sequence, self.clock.now(), is_connected=is_connected)
            changes = self.telling.stream(hub).append_changes(event_messages.key(message), [message])

            async def say() -> None:
                if before is not None:
                    await asyncio.wait((before,))
                await told("word of a connection", self._database.commit(changes))

            task = self._saying[hub, name] = asyncio.get_running_loop().create_task(say())
            task.add_done_callback(lambda done: self._said(hub, name, done))

    def _said(self, hub: str, name: str, done: asyncio.Task[None]) -> None:
        if self._saying.get((hub, name)) is done:
            del self._saying[hub, name]

    async def wait_for_events(self) -> None:
        """Wait until all pending events are durable or abandoned."""
        if self._saying:
            await asyncio.wait(tuple(self._saying.values()))

    async def run_engines_loop(self) -> None:
        """Run an engine for each hub with routes, until the server stops."""
        running: dict[_Part, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                wanted = self._parts()
                for part in [one for one in running if one not in wanted]:
                    await cancel_and_wait(running.pop(part))
                    del self.engines[part]
                for part in wanted:
                    if part not in running:
                        self.engines[part] = engine = self._engine(part)
                        running[part] = start_supervised(f"routes of the hub {part.hub}", engine.keep_running)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._changed.wait()
        finally:
            self.engines.clear()
            await cancel_and_wait(*running.values())

    def _parts(self) -> Sequence[_Part]:
        there = {hub.name for hub in self._hubs.all()}
        found: list[_Part] = []
        for one in self._ready.values():
            if one.hub in there and RouteSource.MESSAGES in one.sources:
                found.append(_Part(one.hub, one.generation, is_telemetry=True))
            if one.hub in there and one.sources - {RouteSource.MESSAGES}:
                found.append(_Part(one.hub, one.generation, is_telemetry=False))
        return found

    def _engine(self, part: _Part) -> RuleEngine[TelemetryMessage]:
        assert self._queue is not None  # noqa: S101 - `begin` has run
        hub, rule = self._hubs.by_name(part.hub), (_OfHub(self, part),)
        stream = self._telemetry.stream_of(hub) if part.is_telemetry else self.telling.stream(part.hub)
        key = {"key_hub": part.hub, "key_generation": part.generation}
        missing = UnknownHubError(host=hub.host)
        return RuleEngine(
            *(self._database, self.clock, stream),
            queue=self._queue,
            sinks=self._sinks,
            find=lambda _: rule,
            group=GROUP,
            trims=not part.is_telemetry,
            leads=self.leads,
            failed=self.failed,
            gone=self._sent,
            while_=lambda: Changes().run(store.ROUTING_IS_THERE, expect=1, otherwise=missing, **key),
        )

    async def trim(self) -> None:
        """Trim the streams that routes write to, by age and size."""
        before = self.clock.micros() - KEEP_S * _MICROS
        for one in tuple(self._ready.values()):
            for endpoint in one.kept.routing.endpoints:
                if isinstance(endpoint, StreamEndpoint):
                    await (await self.stream(f"{one.hub}/{endpoint.name}")).trim(before, KEEP_BYTES)

    async def keep_trimmed(self) -> None:
        """Trim the streams every minute while this worker leads; never return."""
        while True:
            if await self.leads():
                with contextlib.suppress(BirthmarkError):
                    await self.trim()
            await asyncio.sleep(_TRIM_EVERY_S)


def _stream_name(hub: str, endpoint: str) -> str:
    return f"hub-routed/{hub}/{endpoint}"
