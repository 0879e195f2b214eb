"""The health port, filled with connections that never ask: probes are answered, the operator has another door."""

import contextlib
import http.client
import json
import os
import socket
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.servers import RunningServer, a_new_server, a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("health")) as running:
        yield running


@contextlib.contextmanager
def a_crowd(server: RunningServer, count: int = 300) -> Iterator[None]:
    """Hold as many half-open connections as are let, again and again."""
    over = threading.Event()

    def hold() -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            with contextlib.suppress(OSError):
                held.append(socket.create_connection((server.address, 8080), 5))
                held[-1].sendall(b"GET /rea")
            if len(held) > count:
                held.pop(0).close()
        for sock in held:
            sock.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_probe_is_answered_beside_half_open_connections_without_end(server: RunningServer) -> None:
    with a_crowd(server):
        for _ in range(20):
            with urllib.request.urlopen(server.endpoints["health_url"], timeout=10) as answer:
                assert answer.status == 200


def test_a_command_of_the_operator_works_beside_them(server: RunningServer) -> None:
    with a_crowd(server):
        for _ in range(5):
            assert server.rows("hub", "ls")


def test_the_operators_door_is_the_owners_alone(server: RunningServer) -> None:
    door = server.data / "operator.sock"
    assert stat.S_ISSOCK(door.stat().st_mode)
    assert stat.S_IMODE(door.stat().st_mode) == 0o600


def test_the_door_asks_for_the_token_too(server: RunningServer) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        directory = os.open(server.data, os.O_RDONLY)
        sock.connect(f"/proc/self/fd/{directory}/operator.sock")
        os.close(directory)
        sock.sendall(b"GET /operator/v1/est/users HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 401")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "operator.token_refused"


def test_a_server_starts_again_where_one_was_killed_with_its_door(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        server.kill()
        assert (server.data / "operator.sock").exists()
        server.start()
        server.run("hub", "ls")


@pytest.mark.parametrize(("host", "status"), [("attacker.example", 421), ("localhost", 200), ("127.0.0.1:8080", 200)])
def test_a_page_that_a_browser_was_led_to_by_another_name_reads_no_metrics(
    server: RunningServer, host: str, status: int
) -> None:
    connection = http.client.HTTPConnection(server.address, 8080, timeout=10)
    connection.request("GET", "/metrics", headers={"Host": host})
    assert connection.getresponse().status == status
    connection.close()
