"""One process that serves everything: compose the rooms, bind the ports, say when it is ready."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from birthmark.auth.passwords import PasswordCheck
from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.auth.sigv4 import is_signed
from birthmark.awsiot import websocket as aws_websocket
from birthmark.awsiot.broker import Broker
from birthmark.awsiot.http.app import AwsHttp
from birthmark.awsiot.model import AccessKey, Account
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.events import ACCESS_CHANGED, CERTIFICATE_CHANGED
from birthmark.bus import LocalBus
from birthmark.ca.service import CertificateAuthority
from birthmark.clock import Clock, Entropy
from birthmark.console import api
from birthmark.console.est import certificate_routes, est_routes
from birthmark.dps import http as dps_http
from birthmark.dps import wire as dps_wire
from birthmark.dps.mqtt import DpsMqtt
from birthmark.dps.service import Authorities, Enrollments, Instances, Registrations
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.est import http as est_http
from birthmark.est import users as est_users
from birthmark.est.service import EstService
from birthmark.iothub import http as hub_http
from birthmark.iothub import mqtt as hub_mqtt
from birthmark.iothub import service as hub_service
from birthmark.iothub import wire as hub_wire
from birthmark.mqtt.packets import Connect
from birthmark.net.http import ASGIApp, HttpService
from birthmark.net.listener import Listeners
from birthmark.net.pump import MqttLink, MqttSession
from birthmark.net.tls import TlsPeer
from birthmark.net.websocket import serve_mqtt
from birthmark.refusals import Ledger
from birthmark.server.certificate import FreshContext
from birthmark.server.data_dir import DataDirectory
from birthmark.server.endpoints import describe
from birthmark.server.hubs import HubsForDps
from birthmark.server.plain_http import serve_plain
from birthmark.server.settings import Settings
from birthmark.store import Database, open_database

log = logging.getLogger(__name__)

DEFAULT = "birthmark"
AWS_ALPN = b"x-amzn-mqtt-ca"


class Server:
    """Everything of one process. `start` returns when every listener is bound; `stop` ends it cleanly."""

    def __init__(self, settings: Settings, clock: Clock, entropy: Entropy) -> None:
        self.settings = settings
        self._clock = clock
        self._entropy = entropy
        self._data = DataDirectory(settings.directory, clock, entropy)
        self._closers: list[Callable[[], Any]] = []
        self.is_ready = False
        self.endpoints: dict[str, Any] = {}

    async def start(self) -> dict[str, Any]:
        """Create or open everything, bind the ports, and return the endpoints. Raise `BirthmarkError`."""
        settings, clock, entropy = self.settings, self._clock, self._entropy
        self._data.prepare()
        self._closers.append(self._data.release)
        self._data.forget("endpoints.json")  # of a run that was killed: it appears again when everything is bound
        hierarchy = self._data.hierarchy()
        database = await open_database(settings.database_url, clock)
        self._closers.append(database.close)
        ledger = Ledger(database, clock, entropy)
        self._closers.append(ledger.settled)
        bus = LocalBus(database)
        self._closers.append(bus.stop)

        lifetimes = {"device": timedelta(seconds=settings.est.device_lifetime_s)}
        authority = CertificateAuthority(hierarchy, database, clock, entropy, lifetimes)
        revocations = authority.check_not_revoked
        instances = Instances(database, clock, entropy)
        hubs = hub_service.Hubs(database, clock, entropy, revocations)
        self._closers.append(hubs.settled)
        await self._first_start(instances, hubs)
        authorities = Authorities(database, clock, entropy)
        enrollments = Enrollments(database, clock, entropy)
        registrations = Registrations(
            database,
            clock,
            entropy,
            instances=instances,
            enrollments=enrollments,
            hubs=HubsForDps(hubs),
            revocations=revocations,
        )
        est = EstService(authority, PasswordCheck(entropy))
        est_password = await self._first_est_user(database)

        account = Account(settings.aws.account_id, settings.aws.region, settings.host_name)
        aws = AwsIot.of(account, database, clock, entropy, lambda: hierarchy.issuing)
        await aws.load()
        aws_key = await self._first_access_key(aws)
        broker = Broker(database, clock)
        await broker.load()
        self._closers.append(broker.settled)

        hub_links = hub_mqtt.HubConnections(hubs, clock)
        bus.subscribe(hub_service.CHANGED, hub_links.recheck)
        bus.subscribe("iothub.hub_deleted", hub_links.drop_hub)
        bus.subscribe("certificate.revoked", hub_links.drop_certificate)
        dps_links = DpsMqtt(registrations, ledger, clock)
        aws_links = AwsConnections(aws, broker, ledger, clock, entropy)
        bus.subscribe(ACCESS_CHANGED, aws_links.access_changed)
        bus.subscribe(CERTIFICATE_CHANGED, aws_links.certificate_changed)

        async def accept(link: MqttLink, packet: Connect) -> MqttSession:
            username = packet.username or ""
            if link.peer.alpn == AWS_ALPN:
                return await aws_links.accept(link, packet)
            if dps_wire.is_dps_username(username):
                return await dps_links.accept(link, packet)
            if hub_wire.is_hub_username(username):
                return await hub_links.accept(link, packet)
            return await aws_links.accept(link, packet)

        def report(error: BirthmarkError, address: str, peer: TlsPeer) -> None:
            ledger.record(error, address=address, shown=peer.leaf)

        def record(error: BirthmarkError, request: Request) -> str:
            peer: TlsPeer = request.scope["extensions"]["tls"]
            address = request.client.host if request.client else ""
            named = {k: str(v) for k, v in request.path_params.items() if k in {"registration_id", "device_id"}}
            return ledger.record(error, address=address, shown=peer.leaf, **named)

        def make_link(peer: TlsPeer) -> MqttLink:
            return MqttLink(accept, report, clock, peer)

        signed_websocket = aws_websocket.endpoint(aws, aws_links, report, clock)

        async def websocket(socket: WebSocket) -> None:
            if is_signed("", socket.url.query):
                await signed_websocket(socket)
            else:
                await serve_mqtt(socket, make_link)

        est_routes = est_http.routes(est, ledger)
        everything: list[BaseRoute] = [
            *est_routes,
            *hub_http.routes(hubs, record),
            *dps_http.service_routes(instances, enrollments, registrations, record, clock),
            *dps_http.device_routes(registrations, record, clock),
            WebSocketRoute("/$iothub/websocket", websocket),
            WebSocketRoute("/mqtt", websocket),
        ]
        limits = settings.bounds()
        cloud = HttpService(AwsHttp(aws, broker, record, entropy, _application(everything)), limits)
        est_only = HttpService(_application(list(est_routes)), limits)
        names = [settings.host_name, *settings.listen, *settings.names]
        context = FreshContext(lambda: self._data.server_certificate(hierarchy, names))

        listeners = Listeners(clock, limits, report)
        self._closers.append(listeners.close)
        ports, mqtt, web = settings.ports, {"mqtt": make_link}, {"http": cloud.protocol}
        await listeners.listen(settings.listen, ports.mqtt, context, mqtt)
        await listeners.listen(settings.listen, ports.https, context, web)
        await listeners.listen(settings.listen, ports.est, context, {"http": est_only.protocol})
        https_port = await self._bind_also(listeners, context, {**mqtt, **web})

        context.start()
        self._closers.append(context.stop)
        bus.start()
        self._closers.append(
            await serve_plain(self._health_app(database, instances, authorities, hubs, aws, authority), settings)
        )
        self.endpoints = describe(
            settings,
            https_port=https_port,
            instance=instances.by_name(DEFAULT),
            hub=hubs.by_name(DEFAULT),
            est_password=est_password,
            aws_access_key_id=aws_key.id,
            aws_secret_access_key=aws_key.secret,
        )
        self._data.write("endpoints.json", json.dumps(self.endpoints, indent=2).encode(), is_secret=True)
        self.is_ready = True
        log.info("server.ready", extra={"host": settings.host_name})
        return self.endpoints

    async def stop(self) -> None:
        """Stop accepting, finish what was acknowledged, close everything in the reverse order."""
        self.is_ready = False
        async with contextlib.AsyncExitStack() as stack:  # one that fails does not keep the others from ending
            for close in self._closers:
                stack.push_async_callback(_ended, close)
            self._closers = []

    async def _first_start(self, instances: Instances, hubs: hub_service.Hubs) -> None:
        """Make the default hub and provisioning service, linked, unless they are there."""
        host = self.settings.host_name
        await hubs.load()
        await instances.load()
        if not hubs.all():
            await hubs.create(DEFAULT, host, actor="first-start")
        if not instances.all():
            await instances.create(DEFAULT, host, actor="first-start")
            await instances.link(DEFAULT, hubs.by_name(DEFAULT).host, actor="first-start")

    async def _first_access_key(self, aws: AwsIot) -> AccessKey:
        """Return the key to print: the first that was made, or a new one when there is none."""
        present = aws.keys.all()
        return present[0] if present else await aws.keys.add("first-start", actor="first-start")

    async def _first_est_user(self, database: Database) -> str:
        password = self._data.secret("est.password")
        first = Principal(PrincipalKind.OPERATOR, "first-start")
        with contextlib.suppress(est_users.UserExistsError):
            await est_users.add_user(
                self.settings.est.user,
                password,
                device_id=None,
                principal=first,
                database=database,
                clock=self._clock,
                entropy=self._entropy,
            )
        return password

    async def _bind_also(self, listeners: Listeners, context: FreshContext, services: dict[str, Any]) -> int:
        """Bind the second HTTPS port where this user may; return the port to print."""
        ports = self.settings.ports
        if not ports.https_also:
            return ports.https
        try:
            await listeners.listen(self.settings.listen, ports.https_also, context, services)
        except UnavailableError as error:
            log.info("server.port_not_bound", extra={"port": ports.https_also, "reason": error.explain_cause()})
            return ports.https
        return ports.https_also

    def _health_app(
        self,
        database: Database,
        instances: Instances,
        authorities: Authorities,
        hubs: hub_service.Hubs,
        aws: AwsIot,
        authority: CertificateAuthority,
    ) -> ASGIApp:
        async def healthz(_request: Request) -> Response:
            return JSONResponse({"status": "alive"})

        async def readyz(_request: Request) -> Response:
            return JSONResponse({"ready": self.is_ready}, 200 if self.is_ready else 503)

        operator = [
            *api.dps_routes(instances, authorities, hubs, self.settings.host_name),
            *api.hub_routes(hubs, instances),
            *api.aws_routes(aws),
            *api.refusal_routes(database),
            *est_routes(database, self._clock, self._entropy),
            *certificate_routes(authority),
        ]
        routes: list[BaseRoute] = [
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            api.operator_mount(self._data.secret("operator.token"), operator),
        ]
        return _application(routes)


def _application(routes: list[BaseRoute]) -> Starlette:
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # the SDKs' paths are exact; a redirect would lose their signatures
    return app


async def _ended(close: Callable[[], Any]) -> None:
    closing = close()
    if asyncio.iscoroutine(closing):
        await closing
