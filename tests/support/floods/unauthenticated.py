"""What strangers do to a server's port: shared by the tests and by the soak benchmark. Loopback only, bounded."""

import base64
import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

from support.server.servers import RunningServer

_HANG_UP = struct.pack("ii", 1, 0)


def rss_mib(server: RunningServer) -> float:
    """Return what the server's process keeps in memory."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def descriptors(server: RunningServer) -> int:
    """Return how many descriptors it holds."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def insecure() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls(server: RunningServer, port: int, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    raw = socket.create_connection((server.address, port), 10)
    return (context or insecure()).wrap_socket(raw, server_hostname="localhost")


def read_all(sock: socket.socket, timeout: float = 10.0) -> bytes:
    sock.settimeout(timeout)
    data = b""
    with contextlib.suppress(ssl.SSLError, OSError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def masked(payload: bytes, opcode: int = 0x2, *, fin: bool = True) -> bytes:
    """Return a client's WebSocket frame (its mask is zero)."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes([(0x80 if fin else 0) | opcode]) + length + bytes(4) + payload


def websocket(server: RunningServer, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """Return a socket after the upgrade."""
    sock = tls(server, 8443, context)
    key = base64.b64encode(os.urandom(16))
    sock.sendall(
        b"GET /$iothub/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return sock


CONNECT = (
    bytes.fromhex("10")
    + bytes([10 + 2 + 6 + 2 + 20])
    + (b"\x00\x04MQTT\x04\x82\x00\x3c" + b"\x00\x06nobody" + b"\x00\x14localhost/nobody/?a=b"[:22])
)


def tls_garbage(server: RunningServer, _context: ssl.SSLContext) -> None:
    with socket.create_connection((server.address, 8883), 10) as sock:
        sock.sendall(b"\x16\x03\x01\x00\x05hello")
        read_all(sock)


def garbage_in_tls(server: RunningServer, context: ssl.SSLContext) -> None:
    with tls(server, 8443, context) as sock:
        sock.sendall(b"\x00\xff\x00\r\n\r\n")
        read_all(sock)


def mqtt_refused(server: RunningServer, context: ssl.SSLContext) -> None:
    with tls(server, 8883, context) as sock:
        sock.sendall(CONNECT)
        read_all(sock)


def websocket_refused(server: RunningServer, context: ssl.SSLContext) -> None:
    with websocket(server, context) as sock:
        sock.sendall(masked(CONNECT))
        read_all(sock)


def http_refused(server: RunningServer, context: ssl.SSLContext) -> None:
    with tls(server, 8443, context) as sock:
        sock.sendall(b"PUT /devices/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        read_all(sock)


def body_cut_off(server: RunningServer, context: ssl.SSLContext) -> None:
    with tls(server, 8443, context) as sock:
        sock.sendall(b"PUT /0neX/registrations/x/register HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
        time.sleep(0.02)  # a reset takes back what was not read yet
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HANG_UP)


def plain_port(server: RunningServer, _context: ssl.SSLContext) -> None:
    with socket.create_connection((server.address, 8080), 10) as sock:
        sock.sendall(b"GET /operator/v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        read_all(sock)


WAYS: dict[str, Callable[[RunningServer, ssl.SSLContext], None]] = {
    "tls garbage": tls_garbage,
    "garbage in tls": garbage_in_tls,
    "mqtt refused": mqtt_refused,
    "websocket refused": websocket_refused,
    "http refused": http_refused,
    "body cut off": body_cut_off,
    "plain port": plain_port,
}


def unfinished_body(
    server: RunningServer, path: bytes, context: ssl.SSLContext, size: int = 1024 * 1024
) -> ssl.SSLSocket:
    """Return a socket that sent as much of `size` bytes as the server would take, and not the last one."""
    sock = tls(server, 8443, context)
    sock.settimeout(2)
    with contextlib.suppress(ssl.SSLError, OSError):
        sock.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"2000\r\n" + b"a" * 0x2000 + b"\r\n"
        for _ in range(size // 0x2000):
            sock.sendall(piece)
    return sock
