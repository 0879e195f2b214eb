"""P8: a device renews by EST simplereenroll: a fresh TLS connection with its certificate, one request, committed."""

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
from pki_builders import a_csr, a_key, key_pem

DEVICES, OPERATIONS = 40, 160
_PATH = "/.well-known/est/"


@dataclass(frozen=True, slots=True)
class _Renewing:
    context: ssl.SSLContext
    csr: bytes


class Renewal(Measure):
    """Beside a handshake with nginx."""

    name, title, peer = "P8", "EST simplereenroll, durable", "nginx's handshake"
    unit, gate, aim = "us", 1.7, 1.3

    def __init__(self, rig: Rig, tag: str = "renew") -> None:
        self._rig = rig
        self._nginx = rig.once("nginx", peers.nginx)
        made = rig.server.rows("est", "user", "add", f"bench-{tag}", "--any-name")[0]
        word = base64.b64encode(f"bench-{tag}:{made['password']}".encode()).decode()
        self.certificates: list[Certificate] = []
        self._devices = [self._enrolled(f"{tag}-{number}", word) for number in range(DEVICES)]
        self._runs = count()

    def round(self) -> Sample:
        server = self._rig.server
        work: Sequence[_Renewing] = (self._devices * OPERATIONS)[:OPERATIONS]
        ours = cpu_us_each(server.pid, lambda: each(self._renew, work))
        return Sample(ours, shake_nginx(self._nginx, self._rig.devices(OPERATIONS, f"renew-{next(self._runs)}")))

    def _renew(self, device: _Renewing) -> None:
        answer = self._ask(device.context, "simplereenroll", device.csr)
        assert len(answer) > 400, answer

    def _enrolled(self, name: str, word: str) -> _Renewing:
        trust = str(self._rig.trust_file)
        key = a_key()
        csr = base64.encodebytes(a_csr(name, key=key))
        answer = self._ask(ssl.create_default_context(cafile=trust), "simpleenroll", csr, Authorization=f"Basic {word}")
        leaf = parse_certs_only(answer)[0]
        self.certificates.append(leaf)
        pem = self._rig.directory / "renew.pem"
        pem.write_text(leaf.pem() + key_pem(key))
        return _Renewing(self._rig.client_context(pem), csr)

    def _ask(self, context: ssl.SSLContext, operation: str, body: bytes, **headers: str) -> bytes:
        context.check_hostname = False
        connection = HTTPSConnection(self._rig.server.address, 8085, context=context)
        headers |= {"Content-Type": "application/pkcs10"}
        connection.request("POST", _PATH + operation, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status == 200, (answer.status, text, json.dumps(headers))
        return text
