"""The transport against clients that behave oddly, while others are served."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect
from support.server.servers import RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system

LIMITS = "[limits]\nheader_s = 2\nbody_s = 2\nhandshake_s = 2\nfirst_byte_s = 2\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("net"), LIMITS) as running:
        yield running


def client_context(server: RunningServer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.set_ciphers("DEFAULT")
    return context


def connect(server: RunningServer, port: int, context: ssl.SSLContext | None = None, **options: Any) -> ssl.SSLSocket:
    raw = socket.create_connection((server.address, port), 10)
    return (context or client_context(server)).wrap_socket(raw, server_hostname=server.address, **options)


def read_all(sock: ssl.SSLSocket) -> bytes:
    sock.settimeout(10)
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except (ssl.SSLError, ConnectionError):
        pass
    return data


def is_served(server: RunningServer) -> bool:
    with connect(server, 8085) as sock:
        sock.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return read_all(sock).startswith(b"HTTP/1.1 200")


def test_a_client_that_resumes_its_session_gets_a_full_handshake(server: RunningServer) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(server)
        context.minimum_version = context.maximum_version = version
        request = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with connect(server, 8443, context) as first:
            first.sendall(request)
            assert read_all(first).startswith(b"HTTP/1.1 200")
            session = first.session
        with connect(server, 8443, context, session=session) as second:
            second.sendall(request)
            assert read_all(second).startswith(b"HTTP/1.1 200")
            assert second.session_reused is False


@pytest.mark.parametrize("port", [8883, 8443, 8085])
def test_tls_1_2_stays_on_as_awss_sdks_use_keys_of_pkcs11_by_it_alone(server: RunningServer, port: int) -> None:
    context = client_context(server)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(server, port, context) as sock:
        assert sock.version() == "TLSv1.2"


def test_openssls_own_reconnect_test_never_resumes(server: RunningServer) -> None:
    command = ["openssl", "s_client", "-connect", f"{server.address}:8883", "-reconnect", "-tls1_2"]
    command += ["-CAfile", server.endpoints["trust_bundle"]]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False, env=clean_environment())
    assert done.stdout.count("New, TLSv1.2") == 6
    assert "Reused" not in done.stdout


def test_a_megabyte_of_headers_is_refused_with_431_and_others_are_served(server: RunningServer) -> None:
    with connect(server, 8443) as sock:
        answer = b""
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            for number in range(1024):
                sock.sendall(b"X-%d: " % number + b"a" * 1000 + b"\r\n")
        except (ssl.SSLError, ConnectionError):
            pass
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 431")
    assert is_served(server)


def test_more_fields_than_any_client_needs_are_refused_with_431(server: RunningServer) -> None:
    fields, query = b"".join(b"a%d: b\r\n" % n for n in range(300)), b"&".join(b"a%d" % n for n in range(300))
    for head in (b"GET / HTTP/1.1\r\nHost: x\r\n" + fields, b"GET /?" + query + b" HTTP/1.1\r\nHost: x\r\n"):
        with connect(server, 8443) as sock:
            sock.sendall(head + b"\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 431")


def test_headers_just_over_the_bound_get_a_readable_431(server: RunningServer) -> None:
    with connect(server, 8443) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 33_000 + b"\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 431")
    assert b"exceed 32768 bytes" in answer


def test_a_client_that_trickles_its_headers_is_cut_off_while_others_are_served(server: RunningServer) -> None:
    with connect(server, 8443) as sock:
        started = time.monotonic()
        sock.sendall(b"GET / HTTP/1.1\r\n")
        answer = b""
        sock.settimeout(0.3)
        while not answer and time.monotonic() - started < 10:
            try:
                sock.sendall(b"X")
                answer = sock.recv(4096)
            except TimeoutError:
                assert is_served(server)
            except (ssl.SSLError, ConnectionError):
                break
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_client_that_never_finishes_its_handshake_is_dropped_and_explained(server: RunningServer) -> None:
    with socket.create_connection((server.address, 8883), 10) as sock:
        sock.sendall(b"\x16\x03\x01")
        sock.settimeout(10)
        assert sock.recv(1) == b""
    assert any(row["code"] == "net.too_slow" for row in server.rows("why", "--limit", "50"))


@pytest.mark.parametrize("leaves", [True, False], ids=["closes", "falls silent"])
def test_a_client_that_goes_away_over_our_certificate_did_not_trust_it(server: RunningServer, leaves: bool) -> None:
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(into, out, server_hostname="sni.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with socket.create_connection((server.address, 8883), 10) as sock:
        sock.sendall(out.read())
        sock.settimeout(15)
        while sock.recv(65536) and not leaves:
            pass
    explained = server.why("sni.example")
    assert explained["code"] == "tls.server_not_trusted"
    assert "birthmark env" in explained["fix"]
    assert "or it gave up" in explained["cause"]  # a client that ran out of time looks the same


def test_plain_http_on_a_tls_port_is_explained(server: RunningServer) -> None:
    with socket.create_connection((server.address, 8443), 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.settimeout(10)
        while sock.recv(1024):
            pass
    assert any(row["code"] == "tls.plain_text" for row in server.rows("why", "--limit", "50"))


def test_http_on_the_mqtt_port_is_refused(server: RunningServer) -> None:
    with connect(server, 8883) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_all(sock) == b""
    assert any(row["code"] == "net.protocol_not_served" for row in server.rows("why", "--limit", "50"))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(server: RunningServer, chunked: bool) -> None:
    path = f"/{server.endpoints['dps']['id_scope']}/registrations/x/register".encode()
    with connect(server, 8443) as sock:
        sock.sendall(b"PUT " + path + b" HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            if chunked:
                sock.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
                sock.sendall((b"10000\r\n" + b"a" * 0x10000 + b"\r\n") * 40 + b"0\r\n\r\n")
            else:
                sock.sendall(b"Content-Length: 2000000\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 413")
    assert is_served(server)


def test_requests_follow_each_other_on_one_connection_after_a_stray_line_break(server: RunningServer) -> None:
    with connect(server, 8443) as sock:
        request = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(request + b"\r\n" + request[:-2] + b"Connection: close\r\n\r\n")
        assert read_all(sock).count(b"HTTP/1.1 200") == 2


def test_a_get_with_a_body_does_not_upset_the_next_request(server: RunningServer) -> None:
    with connect(server, 8443) as sock:
        head = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n"
        sock.sendall(head + b"Content-Length: 2\r\n\r\n{}" + head + b"Connection: close\r\n\r\n")
        assert read_all(sock).count(b"HTTP/1.1 200") == 2


def test_an_upgrade_that_is_none_is_answered(server: RunningServer) -> None:
    with connect(server, 8443) as sock:
        many = b"".join(
            b"X-%d: x\r\n" % number for number in range(200)
        )  # HTTP allows it, the library of WebSockets not
        sock.sendall(b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + many + b"\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 400")
    assert any(row["code"] == "http.malformed" for row in server.rows("why", "--limit", "50"))


def test_mqtt_over_websocket_takes_packets_in_pieces(tmp_path: Path) -> None:
    with a_server(tmp_path) as patient:  # a client that has to wait for its core is cut off by the other
        asyncio.run(says_who_it_is_in_pieces(patient))


async def says_who_it_is_in_pieces(server: RunningServer) -> None:
    # Not by websockets.sync, which reads and writes one TLS connection in two threads: now and then it hangs.
    from websockets.asyncio.client import connect as open_websocket

    engine = MqttEngine(MqttRole.CLIENT)
    engine.send(Connect("nobody", username="0neX/registrations/nobody/api-version=2019-03-31"))
    async with open_websocket(
        f"wss://{server.address}:8443/$iothub/websocket",
        ssl=client_context(server),
        subprotocols=["mqtt"],  # type: ignore[list-item]  # the library's type is narrower than its documentation
    ) as sock:
        for byte in engine.data_to_send():
            await sock.send(bytes([byte]))
        async with asyncio.timeout(10):
            engine.receive_data(await sock.recv(decode=False), 0.0)
    assert engine.next_event() == ConnAck(code=5)


def test_a_server_that_listens_on_ipv6_serves_there(tmp_path: Path) -> None:
    base = 20000 + 4 * os.getpid() % 12000  # below those that connections go out from
    ports = dict(zip(("mqtt", "https", "est", "health"), range(base, base + 4), strict=True))
    text = 'listen = ["::1"]\nhost = "::1"\n[ports]\nhttps_also = 0\n'
    text += "".join(f"{name} = {port}\n" for name, port in ports.items())
    config = tmp_path / "server.toml"
    config.write_text(text)
    running = RunningServer(tmp_path / "data", "::1", config).start()
    try:
        raw = socket.create_connection(("::1", ports["mqtt"]), 10)
        context = ssl.create_default_context(cafile=running.endpoints["trust_bundle"])
        with context.wrap_socket(raw, server_hostname="::1") as sock:
            assert sock.version() == "TLSv1.3"
    finally:
        assert running.stop() == 0


def test_sigterm_ends_the_server_cleanly_with_clients_connected(tmp_path: Path) -> None:
    with a_server(tmp_path) as running:
        with connect(running, 8443) as sock:
            ended: list[int] = []
            stopper = threading.Thread(target=lambda: ended.append(running.stop()))
            stopper.start()
            assert read_all(sock) == b""
            stopper.join()
        assert ended == [0]
        assert '"error"' not in running.log()


@pytest.mark.parametrize(("alpn", "answer"), [("x-amzn-mqtt-ca", b""), (None, b"\x20\x02\x00\x05")])
def test_alpn_decides_before_the_user_name_which_cloud_answers(
    server: RunningServer, alpn: str | None, answer: bytes
) -> None:
    context = client_context(server)
    if alpn:
        context.set_alpn_protocols([alpn])
    engine = MqttEngine(MqttRole.CLIENT)
    engine.send(Connect("nobody", username="0neX/registrations/nobody/api-version=2019-03-31"))
    with connect(server, 8883, context) as sock:
        assert sock.selected_alpn_protocol() == alpn
        sock.sendall(engine.data_to_send())
        assert read_all(sock) == answer  # AWS hangs up, DPS says CONNACK 5
