"""P30 to P32: what the agent costs a small device: memory with keys in files and in a token, and its start."""

import json
import os
import signal
import subprocess
import time
from itertools import count
from pathlib import Path

from rig import Rig

from birthmark.keys.pkcs11_library_lifecycle import find_softhsm
from birthmark.secure_elements.softhsm_element import initialize_token
from measures.measure import Measure, Sample
from support.agent.device import AgentOnDevice
from support.server.servers import BIRTHMARK, clean_environment

_PIN = "123456"
_SETTLE_S = 1.5
_MEMORY_MIB, _START_S = 60.0, 1.0
_KEYS = '[aziot_keys]\npkcs11_lib_path = "{library}"\npkcs11_base_slot = "pkcs11:token=bench?pin-value={pin}"\n\n'
_numbers = count()


class _Agent:
    """A device of its own that is registered; each run of its agent is looked at when it is connected."""

    def __init__(self, rig: Rig, *, has_token: bool) -> None:
        number = next(_numbers)
        self.root = rig.directory / f"agent-{number}"
        self.device = AgentOnDevice(rig.server, self.root, f"bench-agent-{number}")
        self.environment: dict[str, str] = {}
        if has_token:
            initialize_token(rig.directory / f"chip-{number}", "bench", _PIN)
            self.environment = {"SOFTHSM2_CONF": str(rig.directory / f"chip-{number}/softhsm2.conf")}
        rig.once("agents-enrolled", _enroll)
        keys = _KEYS.format(library=find_softhsm(), pin=_PIN) if has_token else ""
        self.device.configure(lambda text: text.replace("[provisioning]\n", f"{keys}[provisioning]\n", 1))
        self.device.config.chmod(0o600)
        environment = clean_environment(HOME=str(self.root), **self.device.environment, **self.environment)
        subprocess.run([BIRTHMARK, "agent", "apply", "--root", str(self.root)], env=environment, check=True)

    def run(self) -> tuple[float, float]:
        """Return seconds to a running loop that is connected, and MiB a little later."""
        began = time.perf_counter()
        running = self.device.start(**self.environment)
        assert running.stdout is not None
        for line in running.stdout:
            if json.loads(line)["event"] == "connected":
                break
        seconds = time.perf_counter() - began
        time.sleep(_SETTLE_S)
        lines = Path(f"/proc/{running.pid}/smaps_rollup").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
        os.kill(running.pid, signal.SIGTERM)
        running.wait()
        running.stdout.close()
        return seconds, resident / 1024


def _enroll(rig: Rig) -> bool:
    rig.server.run("dps", "ca", "create", "agents", str(rig.server.data / "ca/root.pem"), "--verified")
    rig.server.run("device", "enroll-group", "agents", "--ca-name", "agents")
    return True


class AgentMemory(Measure):
    """Resident memory with a key in a file: Python's TLS, and our own MQTT."""

    name, title, peer = "P30", "agent, key in a file", "a budget of 60 MiB"
    unit, gate, aim = "MiB", 1.0, 0.8
    has_token = False

    def __init__(self, rig: Rig) -> None:
        self._agent = _Agent(rig, has_token=self.has_token)

    def round(self) -> Sample:
        return Sample(self._agent.run()[1], _MEMORY_MIB)


class AgentMemoryWithToken(AgentMemory):
    """The same with a key in a token: awscrt and the token's library beside it."""

    name, title = "P31", "agent, key in a token"
    has_token = True


class AgentStart(Measure):
    """From the command to a connected loop, the token's library included."""

    name, title, peer = "P32", "start of the agent until it is connected, key in a token", "a budget of 1 s"
    unit, gate, aim = "s", 1.0, 0.7

    def __init__(self, rig: Rig) -> None:
        self._agent = _Agent(rig, has_token=True)

    def round(self) -> Sample:
        return Sample(self._agent.run()[0], _START_S)
