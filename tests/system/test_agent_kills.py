"""The real agent killed by the kernel at its n-th call that matters, against a real server; then a normal run.

A sample: every step there is, without a server's processes, is in tests/support/agent/faults.py.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.agent.state_directory import AgentPaths
from support.agent.device import AgentOnDevice
from support.server.servers import BIRTHMARK, RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system
POINTS = [("rename", 1), ("rename", 3), ("rename", 4), ("fsync", 3), ("fsync", 6), ("connect", 1), ("connect", 3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("agent-kills")) as running:
        running.run("dps", "ca", "create", "est-root", str(running.data / "ca/root.pem"), "--verified")
        running.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
        yield running


def test_a_renewal_that_is_killed_anywhere_leaves_a_device_that_connects_with_one_key(
    server: RunningServer, tmp_path: Path
) -> None:
    device = AgentOnDevice(server, tmp_path, "killed-1").configure()
    device.row("apply")
    environment = clean_environment(HOME=str(tmp_path), **device.environment)
    killed = 0
    for call, number in POINTS:
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        command = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, BIRTHMARK, "agent", "renew"]
        done = subprocess.run(
            [*command, "--root", str(tmp_path)], capture_output=True, env=environment, timeout=120, check=False
        )
        killed += done.returncode != 0
        after = device.row("renew")  # finishes what was begun, or renews anew
        assert device.thumbprint_at_hub() == after["thumbprint"], (call, number)
        keys = [path.name for path in AgentPaths(tmp_path).keys.iterdir()]
        assert len(keys) == 1, (call, number, keys)
        names = [path.name for path in AgentPaths(tmp_path).certs.iterdir()]
        assert not [name for name in names if "temp" in name or name[0] == "."]
    assert killed == len(POINTS)
