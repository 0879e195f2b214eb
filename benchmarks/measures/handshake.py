"""P1, P1x, P1c, P1h, P1q: a full TLS 1.3 handshake with a client certificate, and a clean close."""

import contextlib
import socket
import ssl
from collections.abc import Callable
from itertools import count
from typing import ClassVar

import peers
from OpenSSL import SSL
from OpenSSL._util import lib
from rig import Device, Rig, connected, cpu_us_each, each

from measures.measure import Measure, Sample

OPERATIONS = 300


def shake(address: str, port: int, device: Device) -> None:
    """Connect, finish the handshake on both sides (a ping of TLS: the server's answer to our close), close."""
    # The end waits for the server's close_notify, so its side of the handshake is done too; some still say something.
    with connected(address, port, device.context) as sock, contextlib.suppress(ssl.SSLError):
        sock.unwrap().close()


class Handshake(Measure):
    """Beside nginx, which verifies the certificate; every device is new to the server."""

    name, title, peer = "P1", "mTLS handshake and close", "nginx"
    unit, gate, aim = "us", 0.85, 0.75
    start: ClassVar[Callable[[Rig], peers.Peer]] = staticmethod(peers.nginx)

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._other = rig.once(self.peer, type(self).start)
        self._runs = count()

    def round(self) -> Sample:
        fresh = self._rig.devices(OPERATIONS, f"shake-{next(self._runs)}")
        return Sample(self.shake_ours(fresh), shake_nginx(self._other, fresh))

    def shake_ours(self, devices: list[Device]) -> float:
        server = self._rig.server
        return cpu_us_each(server.pid, lambda: each(lambda d: shake(server.address, 8443, d), devices))


class HandshakeBesideHaproxy(Handshake):
    """Beside HAProxy with one thread."""

    name, title, peer = "P1x", "mTLS handshake and close", "HAProxy"
    start = staticmethod(peers.haproxy)


class HandshakeBesideCaddy(Handshake):
    """Beside Caddy on one processor."""

    name, title, peer = "P1c", "mTLS handshake and close", "Caddy"
    start = staticmethod(peers.caddy)


def shake_nginx(nginx: peers.Peer, devices: list[Device]) -> float:
    """Return what one handshake costs nginx."""
    return cpu_us_each(nginx.pid, lambda: each(lambda d: shake(nginx.address, nginx.port, d), devices))


class HandshakeAndRequest(Measure):
    """The same with one request over HTTP, for what is not there."""

    name, title, peer = "P1h", "mTLS handshake and a 404 over HTTP", "nginx"
    unit, gate, aim = "us", 1.05, 0.95

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._nginx = rig.once("nginx", peers.nginx)
        self._runs = count()

    def round(self) -> Sample:
        fresh, server = self._rig.devices(OPERATIONS, f"ask-{next(self._runs)}"), self._rig.server
        ours = cpu_us_each(server.pid, lambda: each(lambda d: ask(server.address, 8443, d), fresh))
        nginx = self._nginx
        return Sample(ours, cpu_us_each(nginx.pid, lambda: each(lambda d: ask(nginx.address, nginx.port, d), fresh)))


def ask(address: str, port: int, device: Device) -> None:
    """Connect, ask for what is not there, read the answer to its end."""
    with connected(address, port, device.context) as sock:
        sock.sendall(f"GET /nowhere HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while more := sock.recv(65536):
            answer += more
        assert answer.startswith(b"HTTP/1.1 404"), answer


class HybridHandshake(Measure):
    """The same by X25519MLKEM768, beside our own by X25519; the client is the library within `cryptography`."""

    name, title, peer = "P1q", "handshake by X25519MLKEM768", "ours by X25519"
    unit, gate, aim = "us", 1.15, 1.08

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._hybrid = _asking(b"X25519MLKEM768:X25519")
        self._classic = _asking(b"X25519")

    def round(self) -> Sample:
        return Sample(self._shake(self._hybrid), self._shake(self._classic))

    def _shake(self, context: SSL.Context) -> float:
        server = self._rig.server
        return cpu_us_each(
            server.pid, lambda: each(lambda _: shake_by(server.address, 8443, context), range(OPERATIONS))
        )


def _asking(groups: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert lib.SSL_CTX_set1_curves_list(context._context, groups) == 1  # noqa: SLF001 - pyOpenSSL has no call for it
    return context


def shake_by(address: str, port: int, context: SSL.Context) -> None:
    """Connect, finish the handshake on both sides, close; without a client's certificate."""
    with socket.create_connection((address, port), 20) as sock:
        sock.settimeout(None)  # which this library needs
        tls = SSL.Connection(context, sock)
        tls.set_connect_state()
        tls.do_handshake()
        tls.shutdown()
        with contextlib.suppress(SSL.Error):
            tls.recv(1)  # waits for the server's close_notify
