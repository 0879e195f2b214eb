"""P24: whether a certificate is revoked, asked by OCSP over a connection that stays: signed answers, handed out."""

import ssl
from collections.abc import Sequence
from http.client import HTTPSConnection

from rig import Rig, cpu_us_each

from birthmark.pki.certificates import parse_pem
from measures.measure import Measure, Sample
from measures.renewal import devices_of_est
from support.pki.ocsp_requests import a_request

DEVICES, OPERATIONS = 40, 2000
_ALLOWED_US = 1_000_000 / 3000


class RevocationAnswer(Measure):
    """Beside what 3,000 answers a second leave of a core."""

    name, title, peer = "P24", "OCSP answer, signed before, on a kept connection", "a budget of 333 us"
    unit, gate, aim = "us", 1.0, 0.75

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        ca = rig.server.data / "ca"
        issuer = parse_pem((ca / "issuing.pem").read_text())
        self._asked = [a_request(device.certificate, issuer) for device in devices_of_est(rig)]
        context = ssl.create_default_context(cafile=rig.server.endpoints["trust_bundle"])
        context.check_hostname = False
        self._connection = HTTPSConnection(rig.server.address, 8085, context=context)

    def round(self) -> Sample:
        self._connection.close()  # that of the round before has been idle for too long
        work = (self._asked * OPERATIONS)[:OPERATIONS]
        return Sample(cpu_us_each(self._rig.server.pid, lambda: self._ask(work)), _ALLOWED_US)

    def _ask(self, requests: Sequence[bytes]) -> int:
        for body in requests:
            self._connection.request("POST", "/ocsp", body, {"Content-Type": "application/ocsp-request"})
            answer = self._connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            assert len(text) > 200, text
        return len(requests)
