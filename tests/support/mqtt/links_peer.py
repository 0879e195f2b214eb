"""A server for links: it tells over HTTP who came, and sends MQTT messages back. Real sockets, real TLS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import UnauthenticatedError
from birthmark.mqtt.packets import Connect, Publish, SubAck, Subscribe, Unsubscribe
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.net.bounded_http import HttpService
from birthmark.net.listener import Listeners
from birthmark.net.listener_limits import Limits
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import Admission, CloseReason, MqttRefusedError
from birthmark.net.tls import server_context
from birthmark.pki import certificate_profiles
from support.pki.pki_builders import Holder, a_ca, a_device

LARGE = 2 * 1024 * 1024
GOOD, REFUSED, LATER, BAD_ID = "device-1", "refused-5", "later-3", "bad-2"
_CODES = {
    REFUSED: ReasonCode.NOT_AUTHORIZED,
    LATER: ReasonCode.SERVER_UNAVAILABLE,
    BAD_ID: ReasonCode.CLIENT_ID_NOT_VALID,
}


@dataclass
class Peer:
    port: int
    ca: Holder
    seen: list[str | None] = field(default_factory=list)
    connects: list[Connect] = field(default_factory=list)
    sessions: "list[EchoSession]" = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


class EchoSession:
    """Acknowledges, and sends what it got to `echo/TOPIC`; a subscription to `closed` is refused."""

    def __init__(self, link: MqttDriver) -> None:
        self.link = link
        self.acknowledged_ids: list[int] = []

    def opened(self) -> None: ...

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        for packet in packets:
            self.link.ack(packet.packet_id)
            self.link.publish(f"echo/{packet.topic}", packet.payload, packet.qos)
        return None

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        codes = tuple(0x80 if name == "closed" else 1 for name, _ in packet.filters)
        self.link.send(SubAck(packet.packet_id, codes))
        return None

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        return None

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        self.acknowledged_ids += packet_ids
        return None

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None: ...


@asynccontextmanager
async def a_peer() -> AsyncIterator[Peer]:
    now = SystemClock().now()
    ca = a_ca(now=now - timedelta(hours=1))
    server = a_device(ca, "localhost", profile=certificate_profiles.SERVER, now=now, san=(x509.DNSName("localhost"),))
    peer = Peer(0, ca)

    async def who(request: Request) -> Response:
        leaf = request.scope["extensions"]["tls"].leaf
        body = await request.body()
        name = None if leaf is None else leaf.subject_cn
        shown = {k: request.headers.get(k) for k in ("host", "x-test", "content-length")}
        return JSONResponse(
            {"method": request.method, "path": str(request.url).partition(str(peer.port))[2], "name": name}
            | {"body": body.decode(), "headers": shown},
            418,
            {"X-Answer": "yes"},
        )

    async def large(_request: Request) -> Response:
        return Response(b"x" * LARGE)

    async def slow(_request: Request) -> Response:
        await asyncio.sleep(30)
        return Response()

    async def accept(link: MqttDriver, packet: Connect) -> Admission:
        peer.connects.append(packet)
        peer.seen.append(None if link.peer.leaf is None else link.peer.leaf.subject_cn)
        if (code := _CODES.get(packet.client_id)) is not None:
            raise MqttRefusedError(code, UnauthenticatedError())
        peer.sessions.append(EchoSession(link))
        return Admission(connection=peer.sessions[-1], session_present=True, keep_alive_s=packet.keep_alive_s)

    app = Starlette(
        routes=[
            Route("/who", who, methods=["GET", "POST", "PUT"]),
            Route("/large", large),
            Route("/slow", slow),
        ]
    )
    clock, limits = SystemClock(), Limits()
    listeners = Listeners(clock, limits, lambda *_: None)
    context = server_context([server.certificate.parsed], server.private_key)
    services = {
        "http": HttpService(app, limits).protocol,
        "mqtt": lambda tls: MqttDriver(accept, lambda *_: None, clock, tls),
    }
    await listeners.listen(["127.0.0.1"], 0, lambda: context, services)
    peer.port = listeners.doors[0].port
    try:
        yield peer
    finally:
        await listeners.close()
