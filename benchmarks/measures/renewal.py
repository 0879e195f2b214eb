"""P8, P25: a device renews by EST simplereenroll, committed: over a fresh TLS connection, over one that stays."""

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
from support.pki.pki_builders import a_csr, a_key, key_pem

DEVICES, OPERATIONS = 160, 160
IN_FLIGHT = 10
_ALLOWED_US = 350.0
_PATH = "/.well-known/est/"


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
        server = self._rig.server
        work: Sequence[Renewing] = (self._devices * OPERATIONS)[:OPERATIONS]
        ours = cpu_us_each(server.pid, lambda: each(self._renew, work))
        return Sample(ours, shake_nginx(self._nginx, self._rig.devices(OPERATIONS, f"renew-{next(self._runs)}")))

    def _renew(self, device: Renewing) -> None:
        answer = ask(self._rig, device.context, "simplereenroll", device.csr)
        assert len(answer) > 400, answer


class KeptRenewal(Measure):
    """Beside what the issue of one may cost; ten devices ask at once, each over a connection that stays."""

    name, title, peer = "P25", "EST simplereenroll, durable, on kept connections, 10 in flight", "a budget of 350 us"
    unit, gate, aim = "us", 1.0, 0.8

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._devices = devices_of_est(rig)
        for device in self._devices:
            device.context.check_hostname = False
        self._connections = [
            HTTPSConnection(rig.server.address, 8085, context=device.context) for device in self._devices
        ]

    def round(self) -> Sample:
        for connection in self._connections:  # those of the round before have been idle for too long
            connection.close()
        self._renew_all()  # the handshakes are not what is measured
        return Sample(cpu_us_each(self._rig.server.pid, self._renew_all), _ALLOWED_US)

    def _renew_all(self) -> int:
        headers = {"Content-Type": "application/pkcs10"}
        every = list(zip(self._connections, self._devices, strict=True))
        for first in range(0, len(every), IN_FLIGHT):
            turn = every[first : first + IN_FLIGHT]
            for connection, device in turn:
                connection.request("POST", _PATH + "simplereenroll", device.csr, headers)
            for connection, _ in turn:
                answer = connection.getresponse()
                text = answer.read()
                assert answer.status == 200, (answer.status, text)
        return len(every)


def devices_of_est(rig: Rig) -> list[Renewing]:
    """Return devices with certificates by EST, the same for every measure."""
    return rig.once("devices of EST", _enrolled)


def _enrolled(rig: Rig) -> list[Renewing]:
    made = rig.server.rows("pki", "user", "create", "bench", "--any-name")[0]
    word = base64.b64encode(f"bench:{made['password']}".encode()).decode()
    trusting = ssl.create_default_context(cafile=str(rig.trust_file))
    devices = []
    for number in range(DEVICES):
        key = a_key()
        csr = base64.encodebytes(a_csr(f"renew-{number}", key=key))
        leaf = parse_certs_only(ask(rig, trusting, "simpleenroll", csr, Authorization=f"Basic {word}"))[0]
        pem = rig.directory / "renew.pem"
        pem.write_text(leaf.pem() + key_pem(key))
        devices.append(Renewing(rig.client_context(pem), csr, leaf))
    return devices


def ask(rig: Rig, context: ssl.SSLContext, operation: str, body: bytes, **headers: str) -> bytes:
    context.check_hostname = False
    connection = HTTPSConnection(rig.server.address, 8085, context=context)
    headers |= {"Content-Type": "application/pkcs10"}
    connection.request("POST", _PATH + operation, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == 200, (answer.status, text, json.dumps(headers))
    return text
