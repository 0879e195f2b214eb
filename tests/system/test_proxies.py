"""Devices behind a real HTTP proxy: every way of theirs goes through it, to port 443 where it is MQTT."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.agent.device import AgentOnDevice, until
from support.azure.clients import a_file_device, needs_443
from support.server.servers import RunningServer, a_new_server

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not here"),
]
_CONFIG = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
LogFile "{log}"
LogLevel Connect
Timeout 60
BasicAuth plant a-secret
ConnectPort 443
ConnectPort 8443
ConnectPort 8085
"""
_TUNNEL = re.compile(r"CONNECT (\S+) HTTP")


@dataclass(frozen=True)
class Proxy:
    """A running proxy, and what it wrote down."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://plant:%61-secret@127.0.0.1:{self.port}"

    def tunnels(self) -> set[str]:
        """Return the places that were asked for."""
        return set(_TUNNEL.findall(self.log.read_text()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        needs_443(running)
        yield running


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    config, log = tmp_path / "tinyproxy.conf", tmp_path / "tinyproxy.log"
    config.write_text(_CONFIG.format(port=port, log=log))
    with subprocess.Popen(["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 10
        while not _answers(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.poll() is None, "it does not take its configuration"
        try:
            yield Proxy(port, log)
        finally:
            running.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["file", "chip"])
def device(request: pytest.FixtureRequest, server: RunningServer, tmp_path: Path) -> list[str]:
    """Return the options of an enrolled device, whose key is in a file or in a chip."""
    if request.param == "chip":
        made = json.loads(server.run("chip", "simulate", str(tmp_path / "chip"), "--json").stdout)
        chip = {name: value for name, value in made.items() if name.isupper()}
        server.run("chip", "cert", "--out", str(tmp_path / "chip.pem"), **chip)
        server.run("device", "enroll", "--cert", str(tmp_path / "chip.pem"), "--update")
        return ["--chip", *(f"{name}={value}" for name, value in chip.items())]
    file = a_file_device(tmp_path, "behind-a-proxy")
    server.run("device", "enroll", "--cert", str(file.certificate_file), "--update")
    return ["--cert", str(file.certificate_file), "--key", str(file.key_file)]


def run(
    server: RunningServer, device: list[str], *words: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    options = [one for one in device if "=" not in one]
    chip = dict(one.split("=", 1) for one in device if "=" in one)
    return server.attempt(*words, *options, **server.environment, **chip, **environment)


@pytest.mark.parametrize("transport", ["mqtt", "https"])
def test_a_device_registers_through_the_proxy(
    server: RunningServer, proxy: Proxy, device: list[str], transport: str
) -> None:
    done = run(server, device, "device", "register", "--transport", transport, https_proxy=proxy.url)
    assert done.returncode == 0, done.stderr
    ports = {place.rpartition(":")[2] for place in proxy.tunnels()}
    assert ports <= {"443", "8443"}
    assert ports
    assert all(place.startswith(server.address) for place in proxy.tunnels())


def test_telemetry_goes_through_the_proxy(server: RunningServer, proxy: Proxy, device: list[str]) -> None:
    assert run(server, device, "device", "register").returncode == 0
    assert proxy.tunnels() == set()
    done = run(server, device, "device", "send", '{"temperature": 21}', HTTPS_PROXY=proxy.url)
    assert done.returncode == 0, done.stderr
    assert f"{server.address}:443" in proxy.tunnels()
    assert {row["body"] for row in server.rows("hub", "messages")} >= {'{"temperature": 21}'}


def test_an_agent_enrolls_registers_and_sends_through_the_proxy(
    server: RunningServer, proxy: Proxy, tmp_path: Path
) -> None:
    server.run("dps", "ca", "create", "est-root", str(server.data / "ca/root.pem"), "--verified")
    server.run("device", "enroll-group", "agents", "--ca-name", "est-root")
    agent = AgentOnDevice(server, tmp_path / "device", "agent-behind").configure()
    with agent.start(https_proxy=proxy.url, no_proxy="") as running:
        until(running, "connected")
        agent.run("renew")
        until(running, "renewed")  # the hub ends the connection of the old certificate, with a close frame
        server.run("hub", "device", "disable", "agent-behind")
        until(running, "disconnected")
        server.run("hub", "device", "enable", "agent-behind")
        until(running, "connected")
        running.terminate()
        running.communicate()
    assert {place.rpartition(":")[2] for place in proxy.tunnels()} >= {"443", "8085"}


def test_where_no_proxy_names_the_server_nobody_asks_the_proxy(
    server: RunningServer, proxy: Proxy, device: list[str]
) -> None:
    done = run(server, device, "device", "register", https_proxy=proxy.url, no_proxy=server.address)
    assert done.returncode == 0, done.stderr
    assert proxy.tunnels() == set()


@pytest.mark.parametrize("transport", ["mqtt", "https"])
def test_a_proxy_that_wants_a_password_is_told_as_that(
    server: RunningServer, proxy: Proxy, device: list[str], transport: str
) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    done = run(server, device, "device", "register", "--transport", transport, https_proxy=url)
    assert done.returncode == 5, done.stderr
    assert "links.proxy_failed" in done.stderr
    assert "407" in done.stderr
    assert "http://USER:PASSWORD@HOST:PORT" in done.stderr


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://plant:hidden@127.0.0.1:9", "onnection refused"),
        ("https://plant:hidden@127.0.0.1:9", "only http://HOST:PORT is spoken to"),
        ("socks5://plant:hidden@127.0.0.1:9", "only http://HOST:PORT is spoken to"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    server: RunningServer, device: list[str], url: str, told: str
) -> None:
    done = run(server, device, "device", "register", https_proxy=url)
    assert (done.returncode, "links.proxy_failed" in done.stderr, told in done.stderr) == (5, True, True)
    assert "hidden" not in done.stderr
