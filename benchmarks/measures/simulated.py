"""P33 and P34: what one device costs a swarm: memory while it is connected and sends, CPU until it is connected."""

import json
import subprocess
from itertools import count
from typing import Any, ClassVar

from rig import Rig

from measures.measure import Measure, Sample
from support.server.servers import BIRTHMARK, clean_environment

DEVICES = 1_000
_BUDGET_KIB = 50.0
_BUDGET_US = 8_000.0
_SECONDS = 20
_numbers = count()


class _Swarm(Measure):
    """A process of its own for each round, at a server of ours that knows the devices already."""

    _interval: ClassVar[str]

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._place = rig.directory / f"swarm-{next(_numbers)}"
        self._place.mkdir()
        self._environment = clean_environment(
            HOME=str(self._place), BIRTHMARK_DATA=str(rig.server.data), SSL_CERT_FILE=str(rig.trust_file)
        )
        self._swarm("prepare")

    def _swarm(self, word: str, *more: str) -> dict[str, Any]:
        words = [BIRTHMARK, "swarm", word, "--devices", str(DEVICES), "--to", "local", "--ramp", "150", "--json", *more]
        done = subprocess.run(
            words, cwd=self._place, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, [*done.stdout.splitlines()[-1:], done.stderr[-2000:]]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def _run(self, *more: str) -> dict[str, Any]:
        told = self._swarm("run", "--duration", f"{_SECONDS}s", *more)
        assert told["connected_at_the_end"] == DEVICES, told
        return told


class SimulatedDevice(_Swarm):
    """Resident memory, all that the process took since before the first device, at its largest."""

    name, title, peer = "P33", "simulated device, connected and sending", "a budget of 50 KiB"
    unit, gate, aim = "KiB", 1.0, 0.9

    def round(self) -> Sample:
        return Sample(self._run("--interval", "5s")["kib_each"], _BUDGET_KIB)


class SimulatedStart(_Swarm):
    """Key loaded, registered over MQTT, connected to the hub: two handshakes, the server's chain verified in each."""

    name, title, peer = "P34", "simulated device, registered and connected", "a budget of 8 ms"
    unit, gate, aim = "us", 1.0, 0.8

    def round(self) -> Sample:
        return Sample(self._run("--interval", "1h")["cpu_s"] / DEVICES * 1e6, _BUDGET_US)
