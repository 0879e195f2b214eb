"""Port dispatchers: route MQTT by user name, AMQP by client and HTTP by path, and record every refusal."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from birthmark import __version__
from birthmark.auth.sigv4 import is_signed
from birthmark.awsiot.http import websocket as aws_websocket
from birthmark.awsiot.http.app import AwsHttp
from birthmark.ca import http as ca_http
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.devices.search import DeviceSearch
from birthmark.errors import BirthmarkError
from birthmark.est import http as est_http
from birthmark.late_reference import Ref
from birthmark.mqtt.engine import MqttLimits as EngineLimits
from birthmark.mqtt.packets import Connect
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send
from birthmark.net.errors import HandshakeFailedError, ServerNotTrustedError, TooSlowError, WebSocketPathError
from birthmark.net.host_header_syntax import RequireAuthority
from birthmark.net.http_route_wrappers import Endpoints, LazyApp
from birthmark.net.mqtt_driver import Accept, MqttDriver
from birthmark.net.mqtt_service_interface import Admission, MqttRefusedError
from birthmark.net.stale_cache_request_delay import RequireFresh
from birthmark.net.tls import TlsPeer
from birthmark.net.websocket_transport import offers_amqp, serve_amqp, serve_mqtt
from birthmark.operator_api import (
    audit,
    aws_keys_and_overview,
    device_certificate_history,
    dps_instances_and_cas,
    est_users_and_certificates,
    hub_configurations,
    hub_consumer_groups,
    hub_device_identities,
    hub_files,
    hub_message_routing,
    hub_queries,
    hub_registry_lines,
    hub_scheduled_jobs,
    hub_twins_methods_messages,
    hubs_cas_and_telemetry,
    refusals,
    rollover,
    server_certificate_and_settings,
)
from birthmark.operator_api.account_pages import OwnPages
from birthmark.operator_api.alerts import alert_endpoints
from birthmark.operator_api.api_router import ApiContext, Endpoint, operator_mount
from birthmark.operator_api.authentication import Authenticator
from birthmark.operator_api.certificate_details import whole_certificate_endpoints
from birthmark.operator_api.certificate_inventory import inventory_endpoints
from birthmark.operator_api.client.server_discovery_and_api_client import NotServedError
from birthmark.operator_api.cluster_nodes import Invite, machine_endpoints
from birthmark.operator_api.cookie_request_guard import SessionGuard
from birthmark.operator_api.counters import figure_endpoints
from birthmark.operator_api.crls import list_endpoints
from birthmark.operator_api.device_enrollment_by_certificate import enrolling_endpoints
from birthmark.operator_api.devices import device_endpoints
from birthmark.operator_api.events_and_webhooks import event_endpoints, webhook_endpoints
from birthmark.operator_api.openapi import openapi
from birthmark.operator_api.policy_keys import key_endpoints
from birthmark.operator_api.sign_in_handler_base import SignInHandlers
from birthmark.operator_api.sign_in_pages import SignInPages
from birthmark.operator_api.sign_in_sessions_and_passwords import ProviderPages, asking_endpoints, session_endpoints
from birthmark.operator_api.user_access import approval_endpoints, token_endpoints, user_endpoints
from birthmark.server.alert_evaluator import AlertEvaluator
from birthmark.server.amqp_dispatch import AmqpDispatcher
from birthmark.server.cluster.file_sync import FileSync
from birthmark.server.composition_root import ServerServices
from birthmark.server.counter_verification import PERIODS, CounterValues
from birthmark.server.cross_worker_certificate_lookup import create_cluster_lookup
from birthmark.server.dps_enrollment import ServerEnrollment
from birthmark.server.metrics_sources import MetricsSource
from birthmark.server.settings import ServedCloud, Settings
from birthmark.server.settings_view import views_of

KEPT_S = 1.0


class DependencyCheck:
    """A dependency check that caches the last result of `ask` for 1 s.

    Concurrent callers share one check.
    """

    def __init__(self, ask: Callable[[], Awaitable[bool]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Future[bool] | None = None
        self._until = 0.0

    async def is_available(self) -> bool:
        """Return whether the dependency is available, or was available within the last second."""
        if self._asking is None or (self._asking.done() and self._clock.monotonic() >= self._until):
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._keep)
        return await asyncio.shield(self._asking)

    def _keep(self, _asked: asyncio.Future[bool]) -> None:
        self._until = self._clock.monotonic() + KEPT_S


_CONSOLE = "birthmark.webconsole.app"


class LatePages:
    """An ASGI application that is created on its first request."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with the pages, which load with the first request."""
        if self._made is None:
            async with self._turn:
                if self._made is None:
                    await asyncio.to_thread(import_module, _CONSOLE)
                    self._made = self._make()
        await self._made(scope, receive, send)


WebSocketHandler = Callable[[WebSocket], Awaitable[None]]
Parts = Callable[[], Mapping[str, bool | str]]
LiveWorkers = Callable[[], Collection[str] | None]
"""Returns the workers that are not declared dead, as far as this one knows; None for a single process."""
"""Status of each component: available or not, or a text for a degraded component that does not affect service."""

AWS_ALPN = b"x-amzn-mqtt-ca"

_MAX_PATH = 200


class Applications:
    """ASGI and MQTT applications that route requests to the services."""

    def __init__(
        self,
        rooms: ServerServices,
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
        *,
        served: server_certificate_and_settings.ServerIdentity | None = None,
        machine: str = "",
    ) -> None:
        """Create the applications; `served` reports the expiry of the server's own certificate on this `machine`."""
        self._rooms = rooms
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._freshness = None if rooms.broker.is_alone else rooms.broker
        asked = settings.alerts
        self.alerting = AlertEvaluator(
            *(rooms, rooms.alerts, settings.directory, asked.thresholds, asked.off, asked.interval),
            machine=machine,
            server=served,
        )
        self.metering = MetricsSource(rooms, self.alerting, served)
        self._metrics = Route("/metrics", self._measured, methods=["GET"])
        self.endpoints: Mapping[str, Any] = {}
        """Service endpoints, without credentials."""
        self.console_url: Ref[str] = Ref()
        """URL of the operator interface for other machines, if it is bound."""
        self._reach = DependencyCheck(rooms.database.is_reachable, clock)
        self._mqtt_limits = EngineLimits(
            connect_timeout_s=settings.bounds().mqtt_connect_s, max_queued=settings.aws.max_waiting
        )

    def mqtt(self, peer: TlsPeer) -> MqttDriver:
        """Return the MQTT protocol of a new connection."""
        return MqttDriver(self._accept, self.report, self._clock, peer, self._mqtt_limits, freshness=self._freshness)

    def amqp(self, peer: TlsPeer) -> AmqpDriver:
        """Return the AMQP protocol of a new connection."""
        return AmqpDriver(self._dispatch_amqp, self.record, self._clock, peer)

    def _dispatch_amqp(self, driver: AmqpDriver) -> AmqpDispatcher:
        return AmqpDispatcher(
            driver,
            self._rooms.components,
            find_unserved=self._find_unserved,
            freshness=self._rooms.broker,
        )

    def _find_unserved(self, service: str) -> NotServedError | None:
        """Return the refusal for a service that this server does not run, or None."""
        if self._settings.serves(ServedCloud(service)):
            return None
        return NotServedError(data=self._settings.directory, service=service)

    def _mqtt_over(self, socket: WebSocket, peer: TlsPeer) -> MqttDriver:
        """Return the MQTT side of a WebSocket whose request is not signed."""
        headers = {name.lower(): value for name, value in socket.headers.items()}
        accept = partial(self._accept, of_aws=self._rooms.aws_connections.acceptor_of(headers, socket.url.query))
        return MqttDriver(accept, self.report, self._clock, peer, self._mqtt_limits, freshness=self._freshness)

    def _websockets(self) -> tuple[WebSocketHandler, WebSocketHandler]:
        """Return the handlers of MQTT over WebSocket, and of MQTT or AMQP."""
        aws = self._rooms.aws
        signed = aws_websocket.endpoint(
            *(aws, self._rooms.aws_connections.acceptor, self.report, self._clock, self._mqtt_limits),
            freshness=self._freshness,
        )

        async def mqtt(socket: WebSocket) -> None:
            if is_signed("", socket.url.query):
                await signed(socket)
            else:
                await serve_mqtt(socket, partial(self._mqtt_over, socket), self.report)

        async def mqtt_or_amqp(socket: WebSocket) -> None:
            if offers_amqp(socket):
                await serve_amqp(socket, self.amqp)
            else:
                await mqtt(socket)

        return mqtt, mqtt_or_amqp

    async def _refuse_websocket(self, socket: WebSocket) -> None:
        error = WebSocketPathError(path=socket.url.path[:_MAX_PATH])
        self.report(error, socket.client.host if socket.client else "", socket.scope["extensions"]["tls"])
        await socket.close()  # before acceptance: 403

    def cloud(self) -> ASGIApp:
        """Return the application with every HTTP interface of the clouds, EST, and MQTT over WebSocket."""
        rooms = self._rooms
        websocket, amqp_websocket = self._websockets()
        record, serves = self._record, self._settings.serves
        devices = est_http.routes(rooms.est, rooms.ledger) if serves(ServedCloud.EST) else []

        def whole() -> ASGIApp:
            from birthmark.azure_arm import http as management_http
            from birthmark.azure_arm.model import ArmResourceKind
            from birthmark.azure_arm.service import Management

            routes = [*self._pki_routes(), *devices]
            sockets: list[BaseRoute] = []
            for one in reversed(rooms.components):  # DPS paths start with any scope: those of hubs come first
                if not one.service or serves(ServedCloud(one.service)):
                    routes += one.routes(record)
                    sockets += [WebSocketRoute(path, amqp_websocket) for path in one.amqp_websocket_paths]
                    sockets += [WebSocketRoute(path, websocket) for path in one.websocket_paths]
            if serves(ServedCloud.IOTHUB, ServedCloud.DPS):
                places = rooms.instances, rooms.authorities, rooms.iothub
                served = {ServedCloud.DPS: ArmResourceKind.DPS, ServedCloud.IOTHUB: ArmResourceKind.HUB}
                kinds = frozenset(kind for service, kind in served.items() if serves(service))
                management = Management(rooms.people, *places, rooms.port, kinds)
                routes += management_http.routes(management, record)
            if serves(ServedCloud.AWS, ServedCloud.IOTHUB, ServedCloud.DPS):
                sockets.append(WebSocketRoute("/mqtt", websocket))
            sockets.append(WebSocketRoute("/{path:path}", self._refuse_websocket))
            return Endpoints(routes, _application(sockets))

        others = LazyApp(whole)
        if not serves(ServedCloud.AWS):
            return self._guarded(others)
        aws_side = rooms.aws_connections
        clouds = AwsHttp(rooms.aws, aws_side.space, aws_side.reserved.ask, record, self._entropy, otherwise=others)
        return self._guarded(clouds)

    def _guarded(self, app: ASGIApp) -> ASGIApp:
        """Return an application with the checks for ports that unauthenticated clients can reach."""
        return RequireAuthority(app if self._freshness is None else RequireFresh(app, self._freshness), self.report)

    def est(self) -> ASGIApp:
        """Return the application for the EST port: EST and revocation status."""
        devices = est_http.routes(self._rooms.est, self._rooms.ledger)
        return self._guarded(Endpoints([*devices, *self._pki_routes()], _application([])))

    def pki(self) -> ASGIApp:
        """Return the plain HTTP application for relying parties.

        Its responses do not depend on the client or the host name.
        """
        return Endpoints(self._pki_routes(), _application([]))

    def _pki_routes(self) -> list[Route]:
        return [*ca_http.routes(self._rooms.answers, self._refused)]

    def health(self, parts: Parts) -> ASGIApp:
        """Return the health and readiness application, which is open to every client that reaches the port."""
        routes = self._health_routes(parts, lambda: None)
        return RequireAuthority(
            _application([*routes, self._metrics] if self._settings.health_metrics else routes), self.report
        )

    def operator(
        self, token: str, table: Sequence[Endpoint], parts: Parts, live_workers: LiveWorkers = lambda: None
    ) -> ASGIApp:
        """Return health and readiness, and the operator interface behind `token`; for loopback."""
        gate = self._gate(self._settings.ports.health)
        known = Authenticator(self._rooms.people, gate, token)
        mount = self._mount(known, table)
        pages = LatePages(lambda: self._pages(gate, table))
        return RequireAuthority(_application([*self._health_routes(parts, live_workers), self._metrics, mount], pages))

    def console(self, table: Sequence[Endpoint]) -> ASGIApp:
        """Return the operator interface for users on other machines, with its sign-in pages.

        It does not accept the access token of the data directory.
        """
        gate = self._gate()
        mount = self._mount(Authenticator(self._rooms.people, gate), table)
        return self._guarded(_application([mount], LatePages(lambda: self._pages(gate, table))))

    def _mount(self, authenticator: Authenticator, table: Sequence[Endpoint]) -> Mount:
        return operator_mount(authenticator, table, openapi, self._api_context())

    def _api_context(self) -> ApiContext:
        return ApiContext(self._rooms.approvals.check, self._rooms.once, self._refused)

    def _gate(self, port: int | None = None) -> SessionGuard:
        return SessionGuard.of(self._rooms.sign_in.sessions, [*self._settings.hosts, socket.gethostname()], port)

    def _pages(self, gate: SessionGuard, table: Sequence[Endpoint]) -> ASGIApp:
        """Return every page, and the response for unknown paths."""
        from birthmark.webconsole.app import Console
        from birthmark.webconsole.page_base import ServerInfo

        desk = SignInHandlers(gate, self._rooms.sign_in, self._entropy, self._refused)
        providers = self._rooms.providers
        others = [(one.name, one.title) for one in providers.all]
        ways = [*SignInPages(desk, others).routes(), *ProviderPages(desk, providers).routes()]
        own = OwnPages(desk, self._rooms.askings).routes()
        about = ServerInfo(self._settings.host_name, __version__, self._settings.workers)
        console = Console.of(
            desk,
            table,
            self._api_context(),
            about=about,
            database=self._rooms.database,
            counted=self._rooms.broker.collect_counters,
            clock=self._clock,
            entropy=self._entropy,
            directory=self._settings.directory,
        )
        app = _application([*ways, *own, *console.routes()])
        app.add_exception_handler(404, console.return_not_found)
        return app

    def _refused(self, error: BirthmarkError, address: str) -> None:
        self._rooms.ledger.record(error, address=address)

    def operator_table(
        self, seed: bytes, audit_key: bytes, served: server_certificate_and_settings.ServerIdentity, sharing: FileSync
    ) -> list[Endpoint]:
        """Return every route of the operator interface."""
        rooms, host = self._rooms, self._settings.host_name
        return [
            *dps_instances_and_cas.endpoints(rooms.instances, rooms.registrations, rooms.iothub.hubs, host),
            *dps_instances_and_cas.show_endpoints(rooms.instances, rooms.authorities),
            *dps_instances_and_cas.ca_endpoints(rooms.instances, rooms.authorities, rooms.enrollments),
            *enrolling_endpoints(ServerEnrollment(rooms, self._clock)),
            *key_endpoints(rooms.instances, rooms.iothub, rooms.port),
            *hubs_cas_and_telemetry.endpoints(rooms.iothub, rooms.instances, served),
            *hubs_cas_and_telemetry.ca_endpoints(rooms.iothub),
            *hub_message_routing.endpoints(rooms.iothub),
            *hub_configurations.endpoints(rooms.iothub),
            *hub_consumer_groups.endpoints(rooms.iothub),
            *hub_files.endpoints(rooms.iothub, rooms.port),
            *hub_registry_lines.endpoints(rooms.iothub),
            *hub_scheduled_jobs.endpoints(rooms.iothub),
            *hub_device_identities.endpoints(rooms.iothub, rooms.hub_devices),
            *device_certificate_history.endpoints(rooms.iothub, rooms.database),
            *hub_device_identities.show_endpoints(rooms.iothub, rooms.hub_devices),
            *hub_queries.endpoints(rooms.iothub, rooms.hub_devices),
            *hub_twins_methods_messages.endpoints(rooms.iothub, rooms.hub_devices),
            *aws_keys_and_overview.endpoints(rooms.aws, rooms.aws_connections.space),
            *refusals.endpoints(
                rooms.database, create_cluster_lookup(rooms.ledger.presented, rooms.broker), self._clock
            ),
            *est_users_and_certificates.est_endpoints(rooms.credentials, seed),
            *est_users_and_certificates.door_endpoints(rooms.tokens, rooms.registrars, rooms.est.approvals),
            *est_users_and_certificates.certificate_endpoints(rooms.authority, rooms.devices.thumbprints),
            *whole_certificate_endpoints(rooms.authority),
            *device_endpoints(rooms.devices, DeviceSearch(rooms.devices, self._clock)),
            *list_endpoints(rooms.authority),
            *inventory_endpoints(rooms.authority),
            *alert_endpoints(rooms.alerts, self._settings.alerts.off),
            *figure_endpoints(CounterValues(rooms.database, self._clock), PERIODS, self._clock),
            *rollover.rollover_endpoints(rooms.rollovers, rooms.groups.add_ca_to_groups),
            *audit.endpoints(rooms.database, audit_key, self._clock),
            *server_certificate_and_settings.endpoints(
                served, lambda: {**self.endpoints, "console": self.console_url.get()}, lambda: views_of(self._settings)
            ),
            *user_endpoints(rooms.people, self._reached, rooms.sign_in.sessions.of),
            *token_endpoints(rooms.people),
            *session_endpoints(rooms.sign_in),
            *asking_endpoints(rooms.askings, self._reached),
            *approval_endpoints(rooms.approvals),
            *event_endpoints(rooms.database, rooms.webhooks.source),
            *webhook_endpoints(rooms.webhooks),
            *machine_endpoints(sharing.machines, self._invite(sharing), sharing.become_leader),
        ]

    def _reached(self) -> Mapping[str, str | None]:
        return {"url": self.console_url.get(), "roots": (self._settings.directory / "trust.pem").read_text()}

    def _invite(self, sharing: FileSync) -> Invite:
        async def invite(actor: str) -> Mapping[str, object]:
            return await sharing.create_invitation(self._rooms.rollovers.hierarchy.generations, actor)

        return invite

    def _health_routes(self, parts: Parts, live_workers: LiveWorkers) -> list[BaseRoute]:
        async def healthz(_request: Request) -> Response:
            live = live_workers()
            return JSONResponse({"status": "alive"} | ({} if live is None else {"workers": list(live)}))

        async def readyz(_request: Request) -> Response:
            found = {"database": await self._reach.is_available(), **parts()}
            ready = all(found.values())
            named = {True: "ready", False: "away"}
            words = {name: there if isinstance(there, str) else named[there] for name, there in found.items()}
            return JSONResponse({"ready": ready, **words}, 200 if ready else 503)

        return [Route("/healthz", healthz), Route("/readyz", readyz)]

    async def _measured(self, request: Request) -> Response:
        from birthmark.server.prometheus import render

        content, media_type = render(await self.metering.samples(), request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type})

    def report(self, error: BirthmarkError, address: str, peer: TlsPeer) -> None:
        """Record a refusal of the transport or of MQTT."""
        self.record(error, address, peer)

    def record(self, error: BirthmarkError, address: str, peer: TlsPeer) -> str:
        """Record a refusal, and return its tracking ID."""
        facts = error.facts  # an MQTT error may contain the refusal, and the certificate without successor
        told, unrenewed = facts.get("tracking_id"), facts.get("renews", "")
        return self._rooms.ledger.record(
            error, address=address, presented=peer.leaf, tracking_id=told, unrenewed=unrenewed
        )

    def report_console_refusal(self, error: BirthmarkError, address: str, peer: TlsPeer) -> None:
        """Record a refusal on the console port.

        Browsers that do not trust the certificate, fail the handshake or hold a connection open are not recorded: they
        are not devices.
        """
        if not isinstance(error, ServerNotTrustedError | HandshakeFailedError | TooSlowError):
            self.report(error, address, peer)

    def _record(self, error: BirthmarkError, request: Request) -> str:
        peer: TlsPeer = request.scope["extensions"]["tls"]
        is_device = "operation_id" in request.path_params or request.url.path.lower().endswith("/devicebound")
        if request.method == "GET" and error.code in _LOOK_UPS and not is_device:
            return new_uuid(self._entropy)  # an operator's existence check is not a refusal
        address = request.client.host if request.client else ""
        named = {k: str(v) for k, v in request.path_params.items() if k in {"registration_id", "device_id"}}
        return self._rooms.ledger.record(error, address=address, presented=peer.leaf, **named)

    async def _accept(self, driver: MqttDriver, packet: Connect, of_aws: Accept | None = None) -> Admission:
        """Select the cloud by ALPN, then by the form of the user name. SNI is not a reliable indicator."""
        rooms, username = self._rooms, packet.username or ""
        await rooms.broker.wait_until_fresh()
        service, accept = ServedCloud.AWS, of_aws or rooms.aws_connections.accept
        if driver.peer.alpn != AWS_ALPN:
            for one in rooms.components:
                if (acceptor := one.find_acceptor(username)) is not None:
                    service, accept = ServedCloud(one.service), acceptor
        if (error := self._find_unserved(service)) is not None:
            raise MqttRefusedError(ReasonCode.SERVER_UNAVAILABLE, error)
        return await accept(driver, packet)


# Responses to an operator tool's existence check before it creates something.
_LOOK_UPS = frozenset(
    {
        "awsiot.no_registration_code",
        "awsiot.shadow_missing",
        "awsiot.unknown_ca",
        "awsiot.unknown_certificate",
        "awsiot.unknown_policy",
        "awsiot.unknown_thing",
        "awsiot.unknown_thing_type",
        "dps.enrollment_not_found",
        "dps.registration_not_found",
        "iothub.unknown_device",
    }
)


def _application(routes: list[BaseRoute], otherwise: ASGIApp | None = None) -> Starlette:
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # the SDKs sign exact paths; a redirect would invalidate signatures
    if otherwise is not None:
        app.router.default = otherwise
    return app
