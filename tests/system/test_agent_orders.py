"""Orders of `birthmark agent` reach whoever keeps the identity, and end nobody."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.agent.state_directory import AgentPaths
from support.agent.device import AgentOnDevice, until
from support.server.servers import RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system
PROGRAM = """
import asyncio, sys
from birthmark.agent import connect

async def main():
    async with connect(root=sys.argv[1]) as device:
        print(device.identity.thumbprint, flush=True)
        async for identity in device.renewals():
            print(identity.thumbprint, flush=True)

asyncio.run(main())
"""
BUSY = """
import sys, time
from pathlib import Path
from birthmark.agent.running_instance import locked
with locked(Path(sys.argv[1])):
    Path(sys.argv[1]).write_bytes(b"")  # as on a full disk
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("agent-orders")) as running:
        running.run("dps", "ca", "create", "est-root", str(running.data / "ca/root.pem"), "--verified")
        running.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
        yield running


def started(device: AgentOnDevice, program: str, argument: Path) -> "subprocess.Popen[str]":
    environment = clean_environment(HOME=str(device.root), **device.environment)
    words = [sys.executable, "-c", program, str(argument)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_program_that_keeps_the_identity_renews_when_it_is_told(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path / "device", "orders-1").configure()
    with ended(started(device, PROGRAM, device.root)) as program:
        first = line_of(program)
        told = device.row("renew")
        assert line_of(program) == told["thumbprint"] != first
        device.run("reprovision")
        refusal = device.attempt("stop")
        assert refusal.returncode != 0
        assert "agent.in_program" in refusal.stderr
        assert str(program.pid) in refusal.stderr
        assert program.poll() is None


def test_whoever_has_the_lock_and_listens_to_nobody_is_left_alone(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path / "device", "orders-2").configure()
    places = AgentPaths(device.root)
    places.prepare()
    with ended(started(device, BUSY, places.lock)) as holder:
        assert line_of(holder) == "locked"
        for order in ("renew", "stop"):
            refusal = device.attempt(order)
            assert refusal.returncode != 0
            assert "agent.slow" in refusal.stderr
            assert f"kill -KILL {holder.pid}" in refusal.stderr
        assert holder.poll() is None


def test_an_agent_takes_orders_and_its_socket_goes_with_it(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path / ("long" * 30), "orders-3").configure()
    socket = AgentPaths(device.root).lock.with_suffix(".sock")
    with ended(device.start()) as agent:
        first = until(agent, "connected")
        assert socket.stat().st_mode & 0o777 == 0o600
        assert device.row("renew")["thumbprint"] != first["thumbprint"]
        device.run("reprovision")
        device.run("stop")
        assert agent.wait(20) == 0
    assert not socket.exists()
