"""MQTT over WebSocket at `/mqtt`, presigned with an access key (developer guide, "Device communication protocols").

The Host header has no port, even if the client was configured with one; the signature covers the header as sent.
"""

from collections.abc import Awaitable, Callable

from starlette.websockets import WebSocket

from birthmark.auth.sigv4 import parse_signature
from birthmark.awsiot.http.app import signed_request_of
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError
from birthmark.mqtt.engine import MqttLimits
from birthmark.net.mqtt_driver import Accept, MqttDriver, Report
from birthmark.net.stale_cache_request_delay import Freshness
from birthmark.net.tls import TlsPeer
from birthmark.net.websocket_transport import serve_mqtt

SERVICES = frozenset({"iotdevicegateway", "iotdata"})


def endpoint(
    aws: AwsIot,
    acceptor: Callable[[ConnectionGrant], Accept],
    report: Report,
    clock: Clock,
    limits: MqttLimits,
    *,
    freshness: Freshness | None,
) -> Callable[[WebSocket], Awaitable[None]]:
    """Return the handler for signed upgrades; an invalid signature is answered 403."""

    async def serve(socket: WebSocket) -> None:
        try:
            address = socket.client.host if socket.client else ""
            signed = signed_request_of(socket.scope)
            grant = await aws.signer(signed, parse_signature(signed), SERVICES, address)
        except BirthmarkError as error:
            report(error, socket.client.host if socket.client else "", socket.scope["extensions"]["tls"])
            await socket.close()
            return

        def make_driver(peer: TlsPeer) -> MqttDriver:
            return MqttDriver(acceptor(grant), report, clock, peer, limits, freshness=freshness)

        await serve_mqtt(socket, make_driver, report)

    return serve
