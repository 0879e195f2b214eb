"""Clients that break HTTP, MQTT or TLS, and operators' slips; what is right is shown beside."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping

from fixes.applied import into
from fixes.desk import Desk, RefusedError, Row, a_connect
from fixes.rows_azure import hub_saying, in_hub


def raw(data: bytes, port: int = 8443) -> Callable[[Desk], object]:
    return lambda desk: desk.raw(data, port)


def in_the_clear(desk: Desk) -> None:
    with socket.create_connection((desk.server.address, 8443), 10) as sock, contextlib.suppress(OSError):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(100)
    raise RefusedError("closed")


def cut_off(desk: Desk) -> None:
    with desk.tls(8443) as sock:
        sock.sendall(b"PUT /0ne0/registrations/a/register HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab")
    raise RefusedError("left")


def other_group(desk: Desk) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve("secp521r1")
    with socket.create_connection((desk.server.address, 8443), 10) as sock:
        context.wrap_socket(sock)


def rsa_suites_alone(desk: Desk) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    with socket.create_connection((desk.server.address, 8443), 10) as sock:
        context.wrap_socket(sock)


def mqtt_at_est(desk: Desk) -> None:
    with desk.tls(8085) as sock, contextlib.suppress(OSError):
        sock.sendall(a_connect("fix-est"))
        sock.recv(100)
    raise RefusedError("closed")


def websocket(desk: Desk, path: str = "", more: str = "") -> object:
    path = path or desk.scene.environment.get("WEBSOCKET", "/ws")
    with desk.tls(8443) as sock:
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n".encode()
        )
        answer = sock.recv(100)
    if not answer.startswith(b"HTTP/1.1 101"):
        raise RefusedError(answer)
    return answer


def typed(line: str) -> Callable[[Desk], object]:
    return lambda desk: desk.type(line)


WIRE: Mapping[str, Row] = {
    "http.body_too_large": Row(
        raw(b"PUT /devices/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"), is_instead=True
    ),
    "http.cut_off": Row(cut_off, is_instead=True),
    "http.headers_too_large": Row(
        raw(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n"), is_instead=True
    ),
    "broker.position_invalid": Row(typed("birthmark hub monitor --after 7"), is_instead=True),
    "http.malformed": Row(raw(b"GET\r\n\r\n"), is_instead=True),
    "mqtt.protocol_error": Row(hub_saying("fix-broken", b"\xf0\x00"), in_hub("fix-broken"), is_instead=True),
    "mqtt.version_unsupported": Row(
        lambda desk: desk.mqtt(
            a_connect("fix-five", f"{desk.scene.environment['PROVISIONING_HOST']}/fix-five/?api-version=a", level=5)
        ),
        in_hub("fix-five"),
        is_instead=True,
    ),
    "net.host_invalid": Row(raw(b"GET / HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n"), is_instead=True),
    "net.protocol_not_served": Row(mqtt_at_est, is_instead=True),
    "net.websocket_path_unknown": Row(websocket, apply=into("WEBSOCKET")),
    "net.websocket_subprotocol": Row(
        lambda desk: websocket(desk, "/mqtt", "Sec-WebSocket-Protocol: AMQPWSB10\r\n"), is_instead=True
    ),
    "operator.name_invalid": Row(typed('birthmark dps create "${NAME:-a b}"'), apply=into("NAME")),
    "tls.handshake_failed": Row(other_group, in_hub("fix-tls"), is_instead=True),
    "tls.no_shared_cipher": Row(rsa_suites_alone, is_instead=True),
    "tls.plain_text": Row(in_the_clear, is_instead=True),
}
