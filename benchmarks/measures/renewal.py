"""P8, P25, P51, P52: EST simplereenroll, committed: over a new TLS connection, and over one that stays."""

import base64
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPSConnection
from itertools import count

import peers
from rig import Rig, cpu_us_each, each

from birthmark.est.wire import parse_certs_only
from birthmark.pki.certificates import Certificate
from measures.handshake import shake_nginx
from measures.measure import Measure, Sample
from support.pki.pki_builders import a_csr, a_device, a_key, key_pem

DEVICES, OPERATIONS = 160, 160
IN_FLIGHT = 10
_ALLOWED_US = 350.0
_PORT, _PATH = 8085, "/.well-known/est/"
_HEADERS = {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}


@dataclass(frozen=True, slots=True)
class Renewing:
    """A device: how it connects, what it asks for, and its first certificate."""

    context: ssl.SSLContext
    csr: bytes
    certificate: Certificate


class Renewal(Measure):
    """Beside a handshake with nginx."""

    name, title, peer = "P8", "EST simplereenroll, durable", "nginx's handshake"
    unit, gate, aim = "us", 2.5, 2.0

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._nginx = rig.once("nginx", peers.nginx)
        self._devices = devices_of_est(rig)
        self._runs = count()

    def round(self) -> Sample:
        ours = renew(self._rig.server.pid, self._rig.server.address, _PORT, self._devices)
        return Sample(ours, shake_nginx(self._nginx, self._rig.devices(OPERATIONS, f"renew-{next(self._runs)}")))


class RenewalBesideGlobalSign(Measure):
    """Beside an EST server that stores nothing; each renewal over a new connection."""

    name, title, peer = "P51", "EST simplereenroll, durable", "GlobalSign's EST server, not durable"
    unit, gate, aim = "us", 1.5, 1.0

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._peer = rig.once("GlobalSign's EST server", peers.globalsign)
        self._devices, self._others = devices_of_est(rig), devices_of_peer(rig)

    def round(self) -> Sample:
        ours = renew(self._rig.server.pid, self._rig.server.address, _PORT, self._devices)
        return Sample(ours, renew(self._peer.pid, self._peer.address, self._peer.port, self._others))


class KeptRenewal(Measure):
    """Beside what the issue of one may cost; ten devices ask at once, each over a connection that stays."""

    name, title, peer = "P25", "EST simplereenroll, durable, on kept connections, 10 in flight", "a budget of 350 us"
    unit, gate, aim = "us", 1.0, 0.8

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._ours = KeptConnections(rig.server.address, _PORT, devices_of_est(rig))

    def round(self) -> Sample:
        return Sample(self._ours.renew(self._rig.server.pid), _ALLOWED_US)


class KeptRenewalBesideGlobalSign(Measure):
    """Beside an EST server that stores nothing; ten devices ask at once, each over a connection that stays."""

    name, title, peer = "P52", KeptRenewal.title, "GlobalSign's EST server, not durable"
    unit, gate, aim = "us", 1.5, 1.0

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._peer = rig.once("GlobalSign's EST server", peers.globalsign)
        self._ours = KeptConnections(rig.server.address, _PORT, devices_of_est(rig))
        self._others = KeptConnections(self._peer.address, self._peer.port, devices_of_peer(rig))

    def round(self) -> Sample:
        return Sample(self._ours.renew(self._rig.server.pid), self._others.renew(self._peer.pid))


class KeptConnections:
    """Connections of devices to an EST server that stay open."""

    def __init__(self, address: str, port: int, devices: Sequence[Renewing]) -> None:
        self._every = [(HTTPSConnection(address, port, context=device.context), device) for device in devices]

    def renew(self, pid: int) -> float:
        """Renew every device's certificate; return the CPU time of process `pid` for each, in us."""
        for connection, _ in self._every:  # those of the round before have been idle for too long
            connection.close()
        self._renew_all()  # the handshakes are not what is measured
        return cpu_us_each(pid, self._renew_all)

    def _renew_all(self) -> int:
        for first in range(0, len(self._every), IN_FLIGHT):
            turn = self._every[first : first + IN_FLIGHT]
            for connection, device in turn:
                connection.request("POST", _PATH + "simplereenroll", device.csr, _HEADERS)
            for connection, _ in turn:
                answer = connection.getresponse()
                text = answer.read()
                assert answer.status == 200, (answer.status, text)
        return len(self._every)


def renew(pid: int, address: str, port: int, devices: Sequence[Renewing]) -> float:
    """Renew certificates, each over a new connection; return the CPU time of process `pid` for each, in us."""

    def ask_once(device: Renewing) -> None:
        text = ask(address, port, device.context, "simplereenroll", device.csr)
        assert len(text) > 400, text

    work: Sequence[Renewing] = (devices * OPERATIONS)[:OPERATIONS]
    return cpu_us_each(pid, lambda: each(ask_once, work))


def devices_of_est(rig: Rig) -> list[Renewing]:
    """Return devices with certificates by EST, the same for every measure."""
    return rig.once("devices of EST", _enrolled)


def devices_of_peer(rig: Rig) -> list[Renewing]:
    """Return devices with certificates of the rig's CA, which the peer administers."""
    return rig.once("devices of the EST peer", _issued)


def _enrolled(rig: Rig) -> list[Renewing]:
    made = rig.server.rows("pki", "user", "create", "bench", "--any-name")[0]
    word = base64.b64encode(f"bench:{made['password']}".encode()).decode()
    trusting = ssl.create_default_context(cafile=str(rig.trust_file))
    devices = []
    for number in range(DEVICES):
        key = a_key()
        csr = base64.encodebytes(a_csr(f"renew-{number}", key=key))
        answer = ask(rig.server.address, _PORT, trusting, "simpleenroll", csr, Authorization=f"Basic {word}")
        leaf = parse_certs_only(answer)[0]
        devices.append(_renewing(rig, leaf, key_pem(key), csr))
    return devices


def _issued(rig: Rig) -> list[Renewing]:
    devices = []
    for number in range(DEVICES):
        holder = a_device(rig.ca, f"renew-{number}", now=rig.now)
        csr = base64.encodebytes(a_csr(f"renew-{number}", key=holder.private_key))
        devices.append(_renewing(rig, holder.certificate, holder.key_pem, csr))
    return devices


def _renewing(rig: Rig, leaf: Certificate, key: str, csr: bytes) -> Renewing:
    pem = rig.directory / "renew.pem"
    pem.write_text(leaf.pem() + key)
    return Renewing(rig.client_context(pem), csr, leaf)


def ask(address: str, port: int, context: ssl.SSLContext, operation: str, body: bytes, **headers: str) -> bytes:
    context.check_hostname = False
    connection = HTTPSConnection(address, port, context=context)
    connection.request("POST", _PATH + operation, body, headers | _HEADERS)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == 200, (answer.status, text, json.dumps(headers))
    return text
