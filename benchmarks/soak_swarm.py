"""Simulated devices by the thousand, in one process, at a server of this project: memory, CPU, and nobody lost.

python benchmarks/soak_swarm.py [--devices 5000] [--seconds 120] [--ramp 150]

Every device registers over MQTT, connects and sends each ten seconds; at two thirds of the time all lines break at once
and all come back. Prints the run's own lines, and one at the end. Exit 1 when a device was lost, an expectation did not
hold, or one costs more than 50 KiB.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.server.servers import BIRTHMARK, RunningServer, clean_environment, free_address

GATE_KIB = 50.0
_STORM_AT = 2 / 3


def scenario_of(devices: int, seconds: float, ramp: float) -> str:
    """Return the text of a scenario file."""
    storm = round(seconds * _STORM_AT)
    return f"""\
title = "soak"
duration = "{seconds:g}s"

[group.meters]
devices = {devices}
ramp = {ramp:g}
interval = "10s"
storm = ["{storm}s"]
patience = "60s"
"""


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(server: RunningServer, directory: Path, scenario: str) -> dict[str, object]:
    """Run the command as people do; return its summary."""
    file = directory / "swarm.toml"
    file.write_text(scenario)
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(directory))
    begun, cpu = time.monotonic(), cpu_s(server.pid)
    command = [BIRTHMARK, "swarm", "prepare", str(file), "--json"]
    subprocess.run(command, cwd=directory, env=environment, check=True, stdout=sys.stderr)
    print(json.dumps({"prepared_s": round(time.monotonic() - begun, 1)}), flush=True)
    summary: dict[str, object] = {}
    command = [BIRTHMARK, "swarm", "run", str(file), "--json", "--report", str(directory / "run.html")]
    with subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if (event := json.loads(line))["event"] == "summary":
                summary = event
    return {**summary, "server_cpu_s": round(cpu_s(server.pid) - cpu, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--ramp", type=float, default=150.0, help="devices that begin in a second")
    parser.add_argument("--kib", type=float, default=GATE_KIB, help="memory a device may take; few take more each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="birthmark-swarm-") as temporary, contextlib.ExitStack() as ends:
        directory = Path(temporary)
        server = RunningServer(directory / "data", free_address()).start()
        ends.callback(server.stop)
        told = run(server, directory, scenario_of(given.devices, given.seconds, given.ramp))
    whole = told.get("connected_at_the_end") == given.devices
    is_good = bool(told.get("held")) and whole and float(str(told["kib_each"])) <= given.kib
    kept = ("devices", "held", "connected_at_the_end", "connects", "kib_each", "cpu_s", "server_cpu_s", "seconds")
    print(json.dumps({"end": True, "is_good": is_good, **{name: told.get(name) for name in kept}}), flush=True)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
