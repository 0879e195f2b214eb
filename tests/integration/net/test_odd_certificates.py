"""A certificate with anything in it, through every door of a running server: an answer, one row, no traceback."""

import base64
import contextlib
import socket
import sqlite3
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from typer.testing import CliRunner

from birthmark.cli.app import app
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect
from fuzz.mutate import read_der, tlv, write_der
from support.floods.unauthenticated import masked
from support.pki.odd_certificates import CHANGES, odd_certificate
from support.pki.pki_builders import a_csr, a_key
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
KEY = a_key()


def can_be_shown(der: bytes) -> bool:
    """Say whether OpenSSL, on either side, takes the bytes for a certificate at all."""
    try:
        crypto.load_certificate(crypto.FILETYPE_ASN1, der)
    except crypto.Error:
        return False
    return True


ODD = {what: odd_certificate(what, KEY) for what in CHANGES}
SHOWN = [what for what, der in ODD.items() if can_be_shown(der)]
TROUBLE = ("Traceback", "mqtt.bug", "http.bug", "Exception in ", "fatal error", '"level": "ERROR"')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("odd")) as running:
        yield running


def pem(der: bytes, label: str = "CERTIFICATE") -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def say(server: RunningServer, port: int, der: bytes, request: bytes, after_upgrade: bytes = b"") -> bytes:
    """Show the certificate, send the request, return what is answered: nothing when the handshake was refused."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with warnings.catch_warnings():  # what `cryptography` would take is not enough here
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    context.use_privatekey(KEY)
    answer = b""
    with socket.create_connection((server.address, port), 10) as raw:
        raw.settimeout(None)  # with one OpenSSL would not wait
        connection = SSL.Connection(context, raw)
        connection.set_tlsext_host_name(b"localhost")
        connection.set_connect_state()
        with contextlib.suppress(SSL.Error):
            connection.do_handshake()
            connection.sendall(request)
            if after_upgrade:
                answer += connection.recv(65536)
                connection.sendall(after_upgrade)
            while piece := connection.recv(65536):
                answer += piece
    return answer


def http(path: str, body: bytes, media_type: str, method: str = "POST") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


UPGRADE = (
    b"GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def doors(server: RunningServer) -> dict[str, tuple[int, bytes, bytes]]:
    scope = server.endpoints["dps"]["id_scope"]
    hub = Connect("odd-device", clean_start=True, username="localhost/odd-device/?api-version=2021-04-12")
    dps = Connect("odd-device", clean_start=True, username=f"{scope}/registrations/odd-device/api-version=2019-03-31")
    aws = Connect("odd-device", clean_start=True)
    csr = base64.encodebytes(a_csr("odd-device", key=KEY))
    register = http(
        f"/{scope}/registrations/odd-device/register?api-version=2021-06-01", b"{}", "application/json", "PUT"
    )
    return {
        "hub": (8883, codec.encode(hub), b""),
        "hub over websocket": (8443, UPGRADE, masked(codec.encode(hub))),
        "aws over websocket": (8443, UPGRADE.replace(b"$iothub/websocket", b"mqtt"), masked(codec.encode(aws))),
        "dps": (8883, codec.encode(dps), b""),
        "aws": (8883, codec.encode(aws), b""),
        "dps over https": (8443, register, b""),
        "aws over https": (8443, http("/topics/a?qos=1", b"{}", "application/json"), b""),
        "est": (8085, http("/.well-known/est/simplereenroll", csr, "application/pkcs10"), b""),
        "est enroll": (8085, http("/.well-known/est/simpleenroll", csr, "application/pkcs10"), b""),
    }


def is_refusal(answer: bytes) -> bool:
    """Say whether an answer is a documented refusal: a CONNACK with a code, a status of 4xx, or a closed handshake."""
    if answer.startswith(b"HTTP/1.1 101"):
        answer = answer.partition(b"\r\n\r\n")[2]
        answer = answer[2:] if answer[:1] == b"\x82" else b""  # else the close frame of a connection without an answer
    return answer == b"" or (answer[:1] == b"\x20" and answer[3] != 0) or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("what", SHOWN)
def test_shown_in_a_handshake_it_is_refused_with_one_row_and_nobody_else_notices(
    server: RunningServer, what: str
) -> None:
    before = rows(server)
    for door, (port, *requests) in doors(server).items():
        answer = say(server, port, ODD[what], *requests)
        assert is_refusal(answer), (door, answer[:200])
    wanted = before + len(doors(server))
    deadline = time.monotonic() + 10
    while rows(server) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.05)
    assert rows(server) == wanted
    assert not any(word in server.log() for word in TROUBLE), server.log()


def rows(server: RunningServer) -> int:
    """Return how many refusals are on record, but of connections that others held: some end while this runs."""
    with contextlib.closing(sqlite3.connect(f"file:{server.data / 'birthmark.db'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM refusals WHERE code NOT LIKE 'net.%'").fetchone()[0])


@pytest.fixture(scope="module")
def aws(server: RunningServer) -> object:
    env = server.environment
    return boto3.client(
        "iot",
        endpoint_url=env["AWS_ENDPOINT_URL_IOT"],
        region_name=env["AWS_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        verify=env["AWS_CA_BUNDLE"],
    )


@pytest.mark.parametrize("what", ODD)
def test_registered_at_aws_it_is_taken_or_refused_by_name(server: RunningServer, aws: Any, what: str) -> None:
    for operation, name in (
        (aws.register_certificate_without_ca, "certificatePem"),
        (aws.register_ca_certificate, "caCertificate"),
    ):
        try:
            operation(**{name: pem(ODD[what])})
        except botocore.exceptions.ClientError as error:
            assert 400 <= error.response["ResponseMetadata"]["HTTPStatusCode"] < 500
    assert not any(word in server.log() for word in TROUBLE), server.log()


def odd_request(what: str) -> bytes:
    """A request with the subject and the extensions of the odd certificate; its signature is good."""
    tbs = read_der(ODD[what])[0][1][0][1]
    subject, spki = (tbs[4], tbs[5]) if tbs[0][0] != 0xA0 else (tbs[5], tbs[6])
    extensions = tbs[-1][1] if tbs[-1][0] == 0xA3 else []
    wanted = [0x30, [[0x06, bytes.fromhex("2a864886f70d01090e")], [0x31, extensions]]]
    info = write_der([[0x30, [[0x02, b"\0"], subject, spki, [0xA0, [wanted]]]]])
    signature = KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    algorithm = tlv(0x30, tlv(0x06, bytes.fromhex("2a8648ce3d040302")))
    return tlv(0x30, info + algorithm + tlv(0x03, b"\0" + signature))


@pytest.fixture(scope="module")
def token(server: RunningServer) -> str:
    """A device's name and password, as EST's Basic authentication has them."""
    return base64.b64encode(":".join(server.est_credential("odd-device")).encode()).decode()


@pytest.mark.parametrize("what", ODD)
def test_asked_for_by_a_request_it_is_issued_or_refused(server: RunningServer, token: str, what: str) -> None:
    body = base64.encodebytes(odd_request(what))
    request = http("/.well-known/est/simpleenroll", body, "application/pkcs10")
    request = request.replace(b"Connection:", f"Authorization: Basic {token}\r\nConnection:".encode())
    answer = say(server, 8085, odd_certificate("certificatePolicies of nothing", KEY), request)
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), answer[:200]
    assert not any(word in server.log() for word in TROUBLE), server.log()


@pytest.fixture(scope="module")
def own_ca(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("own") / "ca"
    server.run("ca", "init", "--name", "Own", "--dir", str(directory))
    server.run("dps", "ca", "create", "own", str(directory / "root.pem"))
    server.run("dps", "ca", "create", "asked", str(directory / "root.pem"))
    server.run("dps", "ca", "code", "asked")
    return directory


COMMANDS = (
    "device enroll --cert {file} --dry-run",
    "device enroll-group g --cert {file} --dry-run",
    "dps ca create odd {file}",
    "dps ca verify own {file}",
    "dps ca verify asked {file}",
    "ca sign {request} --dir {ca}",
)


@pytest.mark.parametrize("what", ODD)
def test_named_on_the_command_line_it_is_used_or_refused_without_a_traceback(
    server: RunningServer, own_ca: Path, what: str, tmp_path: Path
) -> None:
    file, request = tmp_path / "odd.pem", tmp_path / "odd.csr"
    file.write_text(pem(ODD[what]))
    request.write_text(pem(odd_request(what), "CERTIFICATE REQUEST"))
    for command in COMMANDS:
        line = command.format(file=file, request=request, ca=own_ca)
        known = {"BIRTHMARK_DATA": str(server.data), "HOME": str(tmp_path)}
        done = CliRunner().invoke(app, line.split(), input="", env=known, catch_exceptions=False)
        assert done.exit_code == 0 or "Code: " in done.stderr, (line, done.output)
