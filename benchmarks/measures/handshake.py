"""P1: a full TLS 1.3 handshake with a client certificate, and a clean close."""

from itertools import count

import peers
from rig import Device, Rig, connected, cpu_us_each, each

from measures.measure import Measure, Sample

OPERATIONS = 300


def shake(address: str, port: int, device: Device) -> None:
    """Connect, finish the handshake on both sides (a ping of TLS: the server's answer to our close), close."""
    with connected(address, port, device.context) as sock:
        sock.unwrap().close()  # waits for the server's close_notify, so its side of the handshake is done too


class Handshake(Measure):
    """Beside nginx, which verifies the certificate; every device is new to the server."""

    name, title, peer = "P1", "mTLS handshake and close", "nginx"
    unit, gate, aim = "us", 0.85, 0.75

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._nginx = rig.once("nginx", peers.nginx)
        self._runs = count()

    def round(self) -> Sample:
        fresh = self._rig.devices(OPERATIONS, f"shake-{next(self._runs)}")
        return Sample(self.shake_ours(fresh), shake_nginx(self._nginx, fresh))

    def shake_ours(self, devices: list[Device]) -> float:
        server = self._rig.server
        return cpu_us_each(server.pid, lambda: each(lambda d: shake(server.address, 8443, d), devices))


def shake_nginx(nginx: peers.Peer, devices: list[Device]) -> float:
    """Return what one handshake costs nginx."""
    return cpu_us_each(nginx.pid, lambda: each(lambda d: shake(nginx.address, nginx.port, d), devices))
