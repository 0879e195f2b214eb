"""Who has not authenticated may keep little here: bytes, time and descriptors, on every port."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect
from support.aws.clients import until
from support.azure.clients import a_file_device
from support.floods.unauthenticated import (
    CONNECT,
    WAYS,
    descriptors,
    insecure,
    masked,
    read_all,
    rss_mib,
    tls,
    unfinished_body,
    websocket,
)
from support.server.servers import RunningServer, a_server, free_address

pytestmark = pytest.mark.system

_FEW = 20
LIMITS = """[limits]
mqtt_connect_s = 2
max_unauthenticated_per_peer = 120
max_unauthenticated_bytes_per_peer = 2097152
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("strangers"), LIMITS, is_warm=False) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the share of this address unused: the next test's connections count in it, too."""
    if "server" not in request.fixturenames:
        yield
        return
    running = request.getfixturevalue("server")
    before = descriptors(running)
    yield
    until(lambda: descriptors(running) <= before + _FEW, "the connections of this test are gone")


def is_served(server: RunningServer) -> bool:
    with tls(server, 8085) as sock:
        sock.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read_all(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", [b"/.well-known/est/simpleenroll", b"/0neX/registrations/x", b"/topics/x"])
def test_unfinished_bodies_of_a_stranger_stay_within_its_share(server: RunningServer, path: bytes) -> None:
    context = insecure()
    before = rss_mib(server)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            with contextlib.suppress(ssl.SSLError, OSError):  # turned away is within the share, too
                stack.enter_context(unfinished_body(server, path, context))
        grown = rss_mib(server) - before
        assert is_served(server)
    assert grown < 40


@pytest.mark.parametrize(
    ("path", "limit"), [(b"/.well-known/est/simpleenroll", 80), (b"/0neX/registrations/x", 112), (b"/policies/x", 128)]
)
def test_a_path_takes_its_own_size_and_reads_no_further(server: RunningServer, path: bytes, limit: int) -> None:
    with unfinished_body(server, path, insecure()) as sock:
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"exceeds %d bytes" % (limit * 1024) in answer
    assert any(row["code"] == "http.body_too_large" for row in server.rows("why", "--limit", "300"))


def test_over_websocket_the_clock_runs_from_the_first_moment(server: RunningServer) -> None:
    with websocket(server) as sock:
        started = time.monotonic()
        read_all(sock)
        assert time.monotonic() - started < 5
    assert any(row["code"] == "mqtt.protocol_error" for row in server.rows("why", "--limit", "20"))


def test_over_tls_a_connect_that_never_ends_has_the_same_time(server: RunningServer) -> None:
    with tls(server, 8883) as sock:
        started = time.monotonic()
        sock.sendall(CONNECT[:5])
        read_all(sock)
        assert time.monotonic() - started < 5


def test_empty_continuation_frames_cost_nothing(server: RunningServer) -> None:
    before = rss_mib(server)
    with websocket(server) as sock, contextlib.suppress(ssl.SSLError, OSError):
        sock.sendall(masked(b"", fin=False))
        for _ in range(200):
            sock.sendall(masked(b"", 0x0, fin=False) * 2000)
    assert rss_mib(server) - before < 10


def test_a_refusal_over_websocket_ends_the_connection_within_a_second(server: RunningServer) -> None:
    with websocket(server) as sock:
        sock.sendall(masked(CONNECT))
        started = time.monotonic()
        answer = read_all(sock)  # the client never answers the Close
        assert time.monotonic() - started < 1
    assert b"\x20\x02\x00\x05" in answer


def test_a_stranger_s_empty_frames_over_websocket_come_to_an_end(server: RunningServer) -> None:
    with websocket(server) as sock:
        started = time.monotonic()
        sock.sendall(b"\x02\x80" + bytes(4))
        with contextlib.suppress(ssl.SSLError, OSError):
            for _ in range(100):
                sock.sendall((b"\x00\x80" + bytes(4)) * 1000)
        read_all(sock)
        assert time.monotonic() - started < 2  # not after the time to CONNECT


def test_a_device_that_sends_only_pings_over_websocket_is_cut_off(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "pinger")
    server.run("hub", "device", "create", "pinger", "--cert", str(device.certificate_file))
    context = insecure()
    context.load_cert_chain(device.certificate_file, device.key_file)
    user = f"{server.address}/pinger/?api-version=2021-04-12"
    with websocket(server, context) as sock:
        for _ in range(3):  # a few are answered
            sock.sendall(masked(b"", 0x9))
            assert sock.recv(10) == b"\x8a\x00"
        sock.sendall(masked(codec.encode(Connect("pinger", username=user))))
        assert b"\x20\x02\x00\x00" in sock.recv(100)
        sock.sendall(masked(b"", 0x9))
        assert sock.recv(10) == b"\x8a\x00"
        with contextlib.suppress(ssl.SSLError, OSError):
            sock.sendall(masked(b"", 0x9) * 100_000)
        started = time.monotonic()
        assert read_all(sock).count(b"\x8a\x00") < 10_000
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_refused_connection_stays(server: RunningServer, way: str) -> None:
    context = insecure()
    for _ in range(100):
        WAYS[way](server, context)
    time.sleep(3)
    before, held = rss_mib(server), descriptors(server)
    for _ in range(300):
        WAYS[way](server, context)
    deadline = time.monotonic() + 10
    while descriptors(server) > held + 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert descriptors(server) <= held + 3
    assert rss_mib(server) - before < 6
    assert "Traceback" not in server.log()


def test_one_address_holds_its_share_of_connections_and_makes_room_for_itself(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((server.address, 8883))) for _ in range(119)]
        time.sleep(2.2)
        assert is_served(server)
        idle += [stack.enter_context(socket.create_connection((server.address, 8883))) for _ in range(20)]
        time.sleep(0.5)
        for sock in idle:
            sock.setblocking(False)
        gone = 0
        for sock in idle:
            with contextlib.suppress(BlockingIOError):
                gone += sock.recv(1) == b""
        assert gone >= 15


def test_idle_connections_to_the_health_port_starve_nobody(tmp_path: Path) -> None:
    """Under 256 descriptors 300 connections to the plain port used to keep every device out."""
    running = RunningServer(tmp_path / "data", free_address(), descriptors=256).start()
    try:
        assert "server.max_connections_lowered" in running.log()
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.create_connection((running.address, 8080)))
            assert is_served(running)
            time.sleep(2.2)
            assert running.rows("why")
    finally:
        assert running.stop() == 0
