"""P35: a request to the operator interface in a person's name, by TLS, on a connection that stays.

Beside the same request by the token of the data directory over loopback, and what a person may cost above it.
"""

import json
import ssl
from http.client import HTTPConnection, HTTPSConnection

from rig import Rig, cpu_us_each

from measures.measure import Measure, Sample

REQUESTS = 500
_ABOVE_US = 300.0
_PATH = "/operator/v1/hubs"


class PersonsRequest(Measure):
    """See the module."""

    name, title, peer = "P35", "request in a person's name, by TLS", "the same by the machine's own token, and 300 us"
    unit, gate, aim = "us", 1.0, 0.8

    def __init__(self, rig: Rig) -> None:
        self._rig, server = rig, rig.server
        server.rows("user", "create", "bench", "--role", "viewer", "--out", str(rig.directory / "bench.invitation"))
        token = server.rows("token", "create", "bench", "--user", "bench", "--lifetime", "12h")[0]["token"]
        own = (server.data / "operator.token").read_text().strip()
        self._persons, self._own = {"Authorization": f"Bearer {token}"}, {"Authorization": f"Bearer {own}"}
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        context.check_hostname = False
        self._by_tls = HTTPSConnection(server.address, 9443, context=context)
        self._by_loopback = HTTPConnection(server.address, 8080)

    def round(self) -> Sample:
        for connection in (self._by_tls, self._by_loopback):
            connection.close()  # those of the round before have been idle for too long
        pid = self._rig.server.pid
        ours = cpu_us_each(pid, lambda: _ask(self._by_tls, self._persons))
        return Sample(ours, cpu_us_each(pid, lambda: _ask(self._by_loopback, self._own)) + _ABOVE_US)


def _ask(connection: HTTPConnection, headers: dict[str, str]) -> int:
    for _ in range(REQUESTS):
        connection.request("GET", _PATH, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        assert json.loads(text)["items"], text
    return REQUESTS
