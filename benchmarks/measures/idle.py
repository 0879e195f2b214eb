"""P7: what a connection costs that only stands there: 2,000 devices at their hub, and nothing is said."""

import gc
import time
from itertools import count
from pathlib import Path

import peers
from rig import Device, Rig
from swarm import Broker, connect

from measures.measure import Measure, Sample

CONNECTIONS = 2_000
_WARM = 100  # what the first few make a process allocate for good
_SETTLE_S = 1.0


class Idle(Measure):
    """Resident memory, beside mosquitto; a round stands on fresh processes."""

    name, title, peer = "P7", "idle connection", "mosquitto"
    unit, gate, aim = "KiB", 1.45, 1.2

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._runs = count()
        self._kept: list[Sample] = []

    def round(self) -> Sample:
        if self._kept:  # memory is no clock: one look is enough
            return self._kept[0]
        server = self._rig.a_server(f"idle-{next(self._runs)}")
        devices = self._rig.devices(CONNECTIONS + _WARM, "idle")
        self._rig.enroll_at_hub(devices, server)
        ours = _growth(server.pid, Broker(server.address, 8883, server.endpoints["iothub"]["host"]), devices)
        server.stop()
        other = peers.mosquitto(self._rig, port=8887)
        self._kept.append(Sample(ours, _growth(other.pid, Broker(other.address, other.port), devices)))
        return self._kept[0]


def _growth(pid: int, broker: Broker, devices: list[Device]) -> float:
    """Return KiB a connection."""
    warm = [connect(broker, device) for device in devices[:_WARM]]
    time.sleep(_SETTLE_S)
    before = _resident_kib(pid)
    idle = [connect(broker, device) for device in devices[_WARM:]]
    time.sleep(_SETTLE_S)
    grown = _resident_kib(pid) - before
    for sock in (*warm, *idle):
        sock.close()
    gc.collect()
    return grown / len(idle)


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
