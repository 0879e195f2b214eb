"""P3: a device connects to its hub by certificate: handshake, CONNECT, CONNACK, DISCONNECT."""

from itertools import count

import peers
from rig import Rig, cpu_us_each, each
from swarm import Broker, visit

from measures.measure import Measure, Sample

OPERATIONS = 300


class HubConnect(Measure):
    """Beside mosquitto, which takes the name from the certificate; every device is new to the server."""

    name, title, peer = "P3", "hub connect, X.509", "mosquitto"
    unit, gate, aim = "us", 0.65, 0.55

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._mosquitto = rig.once("mosquitto", peers.mosquitto)
        self._runs = count()

    def round(self) -> Sample:
        fresh = self._rig.devices(OPERATIONS, f"connect-{next(self._runs)}")
        self._rig.enroll_at_hub(fresh)
        server, peer = self._rig.server, self._mosquitto
        ours = Broker(server.address, 8883, server.endpoints["iothub"]["host"])
        theirs = Broker(peer.address, peer.port)
        return Sample(
            cpu_us_each(server.pid, lambda: each(lambda d: visit(ours, d), fresh)),
            cpu_us_each(peer.pid, lambda: each(lambda d: visit(theirs, d), fresh)),
        )
