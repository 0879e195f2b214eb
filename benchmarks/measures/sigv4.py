"""P10, P10n: an operator's tool registers a device's certificate without a CA, signed by SigV4, over one connection."""

import json
import ssl
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPSConnection
from itertools import count
from urllib.parse import urlsplit

import peers
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from rig import Rig, cpu_us_each

from measures.handshake import shake_nginx
from measures.measure import Measure, Sample
from support.pki.pki_builders import a_device

OPERATIONS = 200


class RegisterCertificate(Measure):
    """Beside moto's server, which has no TLS and keeps nothing; ours speaks TLS and is durable."""

    name, title, peer = "P10", "SigV4 register-certificate-without-ca", "moto"
    unit, gate, aim = "us", 0.25, 0.15

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        aws = rig.server.endpoints["aws"]
        self._region = aws["region"]
        self._credentials = Credentials(aws["access_key_id"], aws["secret_access_key"])
        url = urlsplit(aws["endpoint_url"])
        context = ssl.create_default_context(cafile=rig.server.endpoints["trust_bundle"])
        context.check_hostname = False
        self._ours = HTTPSConnection(rig.server.address, url.port or 443, context=context), aws["endpoint_url"]
        self._runs = count()

    def round(self) -> Sample:
        run = next(self._runs)
        pems = [
            a_device(common_name=f"sigv4-{run}-{number}", now=self._rig.now).certificate.pem()
            for number in range(OPERATIONS)
        ]
        self._ours[0].close()  # that of the round before has been idle for too long
        ours = cpu_us_each(self._rig.server.pid, lambda: self._register(*self._ours, pems))
        return Sample(ours, self._peers_cost(pems))

    def _peers_cost(self, pems: Sequence[str]) -> float:
        moto = self._rig.once("moto", peers.moto)
        theirs = HTTPConnection(moto.address, moto.port)
        return cpu_us_each(moto.pid, lambda: self._register(theirs, f"http://{moto.address}:{moto.port}", pems))

    def _register(self, connection: HTTPConnection, base: str, pems: Sequence[str]) -> int:
        ids = set()
        for pem in pems:
            body = json.dumps({"certificatePem": pem, "status": "ACTIVE"})
            request = AWSRequest("POST", f"{base}/certificate/register-no-ca", data=body)
            request.headers["Content-Type"] = "application/json"
            request.headers["Host"] = urlsplit(base).netloc
            SigV4Auth(self._credentials, "iot", self._region).add_auth(request)
            connection.request("POST", "/certificate/register-no-ca", body, dict(request.headers.items()))
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            ids.add(json.loads(text)["certificateId"])
        return len(ids)


class RegisterCertificateBesideNginx(RegisterCertificate):
    """Beside a handshake with nginx, which varies less than moto does."""

    name, peer = "P10n", "nginx's handshake"
    gate, aim = 1.9, 1.4

    def _peers_cost(self, pems: Sequence[str]) -> float:
        nginx = self._rig.once("nginx", peers.nginx)
        return shake_nginx(nginx, self._rig.devices(OPERATIONS, f"sigv4-{id(pems)}"))
