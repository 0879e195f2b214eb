"""The agent on a machine whose clock is years off, against a server whose clock is right."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.agent.state_directory import AgentPaths
from support.agent.device import AgentOnDevice
from support.server.servers import BIRTHMARK, RunningServer, a_new_server, clean_environment, with_clock

pytestmark = pytest.mark.system
WRONG = pytest.mark.parametrize("clock", ["@1970-01-02 00:00:00", "+3650d"], ids=["1970", "ten years ahead"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("agent-clock")) as running:
        running.run("dps", "ca", "create", "est-root", str(running.data / "ca/root.pem"), "--verified")
        running.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
        yield running


def at(clock: str, device: AgentOnDevice, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run an agent's command with the clock that faketime shows it."""
    command = [BIRTHMARK, "agent", *arguments, "--root", str(device.root), "--json"]
    environment = clean_environment(HOME=str(device.root), **device.environment, **with_clock(clock))
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@WRONG
def test_a_first_start_learns_the_time_and_gets_its_identity(server: RunningServer, tmp_path: Path, clock: str) -> None:
    device = AgentOnDevice(server, tmp_path, f"clock-{len(clock)}").configure()
    applied = at(clock, device, "apply")
    assert applied.returncode == 0, applied.stderr
    row = json.loads(applied.stdout)
    assert device.thumbprint_at_hub() == row["thumbprint"]
    assert "ahead" in row["clock"] or "behind" in row["clock"] or "was later" in row["clock"]


@WRONG
def test_a_device_keeps_its_identity_and_renews_it(server: RunningServer, tmp_path: Path, clock: str) -> None:
    device = AgentOnDevice(server, tmp_path, f"kept-{len(clock)}").configure()
    first = device.row("apply")
    state = AgentPaths(tmp_path).state
    state.write_text(json.dumps({**json.loads(state.read_text()), "clock_boot": "another start"}))
    again = at(clock, device, "apply")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["thumbprint"] == first["thumbprint"]
    renewed = at(clock, device, "renew")
    assert renewed.returncode == 0, renewed.stderr
    assert device.thumbprint_at_hub() == json.loads(renewed.stdout)["thumbprint"] != first["thumbprint"]


def test_a_server_of_an_expired_certificate_cannot_set_the_time_back(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path, "floor-1").configure()
    device.row("apply")
    state = AgentPaths(tmp_path).state
    later = {"seen_at": "2040-01-01T00:00:00Z", "clock_boot": ""}  # as learnt long after the server's certificate ended
    state.write_text(json.dumps({**json.loads(state.read_text()), **later}))
    refused = device.attempt("apply", "--json")
    assert refused.returncode != 0
    assert "links.server_untrusted" in refused.stderr + refused.stdout
