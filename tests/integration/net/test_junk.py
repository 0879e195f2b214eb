"""Whatever a stranger sends: a documented answer, one row, at most a line in the log, no traceback."""

import contextlib
import json
import socket
import struct
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL, crypto

from support.floods.unauthenticated import read_all, tls
from support.pki.pki_builders import a_device
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
HANG_UP = struct.pack("ii", 1, 0)
EST = b"/.well-known/est/simpleenroll"
REGISTER = b"/0neX/registrations/x/register"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("junk")) as running:
        yield running
        assert "Traceback" not in running.log()


def codes(server: RunningServer) -> list[str]:
    lines = server.attempt("why", "--limit", "1000", "--json").stdout.splitlines()
    return [json.loads(line)["code"] for line in lines]


def wait_for(server: RunningServer, code: str, count: int) -> None:
    for _ in range(20):
        if codes(server).count(code) == count:
            return
    raise AssertionError(codes(server))


@pytest.mark.parametrize(("method", "path"), [(b"POST", EST), (b"PUT", REGISTER), (b"POST", b"/topics/a")])
def test_a_hang_up_in_the_middle_of_a_body_is_one_row(server: RunningServer, method: bytes, path: bytes) -> None:
    before = codes(server).count("http.cut_off")
    sock = tls(server, 8443)
    sock.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
    time.sleep(0.2)  # a reset takes back what was not read yet
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HANG_UP)
    sock.close()
    wait_for(server, "http.cut_off", before + 1)


@pytest.mark.parametrize("path", [EST, REGISTER, b"/topics/a"])
def test_a_body_that_is_badly_chunked_is_a_400_and_one_row(server: RunningServer, path: bytes) -> None:
    before = codes(server).count("http.malformed")
    method = b"PUT" if path == REGISTER else b"POST"
    with tls(server, 8443) as sock:
        sock.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain")
    wait_for(server, "http.malformed", before + 1)


@pytest.mark.parametrize("depth", [900, 2_000, 20_000])
def test_json_that_is_deep_is_a_400(server: RunningServer, depth: int) -> None:
    body = b'{"payload":' + b"[" * depth + b"]" * depth + b"}"
    with tls(server, 8443) as sock:
        head = b"PUT " + REGISTER + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert read_all(sock)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 404"}


def test_an_operators_deep_json_is_a_400_too(server: RunningServer) -> None:
    token = Path(server.data / "operator.token").read_text().strip().encode()
    body = b'{"name":' + b"[" * 5000 + b"]" * 5000 + b"}"
    with socket.create_connection((server.address, 8080), 10) as sock:
        head = b"POST /operator/v1/est/users HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token
        sock.sendall(head + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert read_all(sock)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 422"}


def test_header_names_have_their_customary_capitals_on_every_answer(server: RunningServer) -> None:
    for port, request in (
        (8085, b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        (8443, b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        (8443, b"GET /twins/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        (8443, b"GET /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        (8443, b"nonsense\r\n\r\n"),
        (8443, b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ):
        with tls(server, port) as sock:
            sock.sendall(request)
            head = read_all(sock).partition(b"\r\n\r\n")[0]
        names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
        assert names, request
        vendors = (b"x-amzn-", b"x-ms-", b"iothub-")
        assert [n for n in names if n[:1].islower() and not n.startswith(vendors)] == [], head
        assert b"Content-Type" in names or b"Content-Length" in names or port == 8443


def test_a_certificate_that_nobody_can_read_is_one_row(server: RunningServer) -> None:
    device = a_device()
    version_3 = b"\xa0\x03\x02\x01\x02"
    der = device.certificate.der.replace(version_3, version_3[:-1] + b"\x03", 1)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with warnings.catch_warnings():  # what `cryptography` would take is not enough here
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    context.use_privatekey(device.private_key)
    with socket.create_connection((server.address, 8883), 10) as raw:
        raw.settimeout(None)  # with one OpenSSL would not wait
        connection = SSL.Connection(context, raw)
        connection.set_connect_state()
        with contextlib.suppress(SSL.Error):
            connection.do_handshake()
            connection.recv(1)
    wait_for(server, "pki.certificate_invalid", 1)
    assert "Traceback" not in server.log()
