"""Behind HAProxy, which says by the PROXY protocol whom it speaks for: limits and refusals are the device's."""

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.net.proxy_protocol import SIGNATURE
from support.server.servers import RunningServer, a_server, clean_environment, free_address

pytestmark = pytest.mark.system
BALANCER, DEVICE = "127.9.9.9", "127.5.5.5"
_CONFIGURATION = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend https
  bind {front}:8443
  default_backend https
backend https
  source {balancer}
  server one {server}:8443 send-proxy-v2
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory = tmp_path_factory.mktemp("proxied")
    with a_server(directory, f'proxies = ["{BALANCER}"]\nhost = "localhost"\n', is_warm=False) as running:
        yield running


@pytest.fixture(scope="module")
def front(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HAProxy before the server."""
    front = free_address()
    configuration = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    configuration.write_text(_CONFIGURATION.format(front=front, balancer=BALANCER, server=server.address))
    with subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", str(configuration)], env=clean_environment()) as process:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((front, 8443), 5):
                break
            assert time.monotonic() < until
            time.sleep(0.05)
        yield front
        process.terminate()


def asked(server: RunningServer, address: str, *more: str) -> str:
    """Ask EST for a certificate by a password that is wrong, from the device's address; return the status."""
    command = ["curl", "-sS", "--cacert", str(server.data / "trust.pem"), "--interface", DEVICE, "-o", "/dev/null"]
    command += ["-w", "%{http_code}", "--connect-to", f"localhost:8443:{address}:8443", "-u", "nobody:wrong"]
    command += ["--data-binary", "@/dev/null", "-H", "Content-Type: application/pkcs10", *more]
    url = "https://localhost:8443/.well-known/est/simpleenroll"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False, env=clean_environment())
    return done.stdout


def test_a_refusal_is_of_the_address_that_the_balancer_names(server: RunningServer, front: str) -> None:
    assert asked(server, front) != "000"
    assert server.why("nobody")["address"] == DEVICE


def test_who_comes_without_the_balancer_is_served_as_itself(server: RunningServer) -> None:
    assert asked(server, server.address, "--interface", "127.5.5.6") != "000"


def test_who_says_it_of_itself_is_not_believed(server: RunningServer) -> None:
    header = SIGNATURE + b"\x21\x11" + struct.pack("!H", 12) + bytes(12)
    with socket.create_connection((server.address, 8443), 5) as line:
        line.sendall(header)
        assert line.recv(100)[:1] in {b"", b"\x15"}  # an alert of TLS at most


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaa", SIGNATURE + b"\x21\x11\xff\xff"]
)
def test_a_balancer_that_says_nothing_of_it_is_cut_off_and_told_in_the_log(server: RunningServer, said: bytes) -> None:
    with socket.create_connection((server.address, 8443), 5, (BALANCER, 0)) as line:
        line.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(100) == b""
    assert "net.proxy_header" in server.log()


def test_a_balancer_that_never_says_it_holds_nothing_up(server: RunningServer, front: str, tmp_path: Path) -> None:
    del tmp_path
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection((server.address, 8443), 5, (BALANCER, 0)))
        began = time.monotonic()
        assert asked(server, front) != "000"
        assert time.monotonic() - began < 5
