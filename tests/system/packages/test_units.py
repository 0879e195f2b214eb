"""The packages' units, started by a real systemd in a fresh Debian 12 that was booted for it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import debian_root
from support.server.debian_root import booted, bootstrapped

MISSING = [tool for tool in ("systemd-nspawn", "nsenter") if shutil.which(tool) is None] + debian_root.MISSING
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {MISSING}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root belongs to root"),
]
CONFIGURATION = "host = 'localhost'\nlisten = ['127.98.7.6']\n"


class Machine:
    """What was booted, with both packages in it."""

    def __init__(self, enter: list[str]) -> None:
        self._enter = enter

    def run(self, *command: str, timeout: float = 60) -> str:
        whole = [*self._enter, *command]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def says(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()


@pytest.fixture(scope="module")
def machine(packages: dict[str, Path]) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="birthmark-booted-") as name:
        root = bootstrapped(Path(name), "systemd-sysv", "dbus")
        # An address of its own: the network is this machine's.
        (root / "etc/birthmark").mkdir()
        (root / "etc/birthmark/server.toml").write_text(CONFIGURATION)
        for package in packages.values():
            shutil.copy(package, root)
        with booted(root, Path(name) / "boot.log") as enter:
            there = Machine(enter)
            there.run("apt-get", "update", "-q", timeout=120)
            quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"]
            quiet += ["--no-install-recommends", "--option", "Dpkg::Options::=--force-confold"]
            there.run(*quiet, *(f"/{package.name}" for package in packages.values()), timeout=300)
            yield there


def test_the_server_answers_when_its_installation_is_done(machine: Machine) -> None:
    as_server = ["setpriv", "--reuid=birthmark", "--regid=birthmark", "--clear-groups"]
    place = ["--data", "/var/lib/birthmark"]
    told = machine.run(*as_server, "birthmark", "env", *place)
    assert "IOTHUB_CONNECTION_STRING" in told
    assert machine.says("birthmark-server", "ActiveState") == "active"
    assert machine.says("birthmark-server", "NRestarts") == "0"


def test_the_server_is_started_when_it_answers(machine: Machine) -> None:
    machine.run("bash", "-c", "systemctl restart birthmark-server && exec 3<>/dev/tcp/127.98.7.6/8883")


def test_who_starts_a_server_that_cannot_start_is_told_so_and_does_not_wait(machine: Machine) -> None:
    machine.run("systemctl", "stop", "birthmark-server")
    with socket.create_server(("127.98.7.6", 8883)):  # the network is this machine's
        told = machine.run("sh", "-c", "systemctl start birthmark-server 2>&1 || echo refused")
        assert told.endswith("refused\n")
        assert "net.port_taken" in machine.run("journalctl", "--unit", "birthmark-server", "--lines", "20")
    machine.run("systemctl", "start", "birthmark-server")


def test_the_agent_waits_for_its_configuration(machine: Machine) -> None:
    assert machine.says("birthmark-agent", "ActiveState") == "inactive"
    assert machine.says("birthmark-agent", "ConditionResult") == "no"


def test_the_agent_comes_as_far_as_its_server_under_its_unit(machine: Machine) -> None:
    nobody = 'hostname = "pump-1"\n[provisioning]\nsource = "dps"\nglobal_endpoint = "https://localhost:1"\n'
    nobody += 'id_scope = "0ne1"\n[provisioning.attestation]\nmethod = "x509"\nregistration_id = "pump-1"\n'
    nobody += '[provisioning.attestation.identity_cert]\nmethod = "self_signed"\ncommon_name = "pump-1"\n'
    write = f"cat > /etc/aziot/config.toml <<'END'\n{nobody}END\nchgrp birthmark-agent /etc/aziot/config.toml"
    machine.run("sh", "-c", f"umask 027; {write}; systemctl start --no-block birthmark-agent")
    told = "until systemctl show --property StatusText birthmark-agent | grep failed; do sleep 0.2; done"
    assert "localhost" in machine.run("sh", "-c", told)
    assert machine.says("birthmark-agent", "NRestarts") == "0"


def test_systemd_finds_nothing_in_either(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "birthmark-server.service", "birthmark-agent.service") == ""
