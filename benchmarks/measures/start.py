"""P48 and P49: a new server, from the command until it is ready, and its memory then."""

import subprocess
import time
from pathlib import Path

from rig import Rig

from measures.measure import Measure, Sample
from support.server.servers import BIRTHMARK, clean_environment, free_address

_START_S, _MEMORY_MIB = 0.6, 85 * 1000 / 1024
_SETTLE_S = 0.5


class _Start:
    """A data directory each, as in a CI job."""

    def __init__(self, rig: Rig) -> None:
        self._directory, self._runs = rig.directory, 0

    def run(self) -> tuple[float, float]:
        """Return seconds until it says that it is ready, and MiB a little later."""
        self._runs += 1
        data = self._directory / f"start-{id(self)}-{self._runs}"
        command = [BIRTHMARK, "serve", "--data", str(data), "--listen", free_address(), "--json"]
        began = time.perf_counter()
        serving = subprocess.Popen(
            command, env=clean_environment(HOME=str(self._directory)), stdout=subprocess.PIPE, text=True
        )
        assert serving.stdout is not None
        serving.stdout.readline()
        seconds = time.perf_counter() - began
        time.sleep(_SETTLE_S)
        lines = Path(f"/proc/{serving.pid}/smaps_rollup").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
        serving.terminate()
        serving.wait()
        serving.stdout.close()
        return seconds, resident / 1024


class ServerStart(Measure):
    """Everything a first start makes included: a root, keys, a database."""

    name, title, peer = "P48", "start of a new server until it is ready", "a budget of 0.6 s"
    unit, gate, aim = "s", 1.0, 0.7

    def __init__(self, rig: Rig) -> None:
        self._start = _Start(rig)

    def round(self) -> Sample:
        return Sample(self._start.run()[0], _START_S)


class ServerMemory(Measure):
    """Resident memory of a new server that is ready, and that nobody has asked anything."""

    name, title, peer = "P49", "memory of a new server that is ready", "a budget of 85 MB"
    unit, gate, aim = "MiB", 1.0, 0.7

    def __init__(self, rig: Rig) -> None:
        self._start = _Start(rig)

    def round(self) -> Sample:
        return Sample(self._start.run()[1], _MEMORY_MIB)
