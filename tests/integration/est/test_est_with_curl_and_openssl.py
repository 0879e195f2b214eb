"""EST over real TLS with the clients people have: openssl and curl."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from birthmark.ca.server_certificates import issue_server
from birthmark.clock_and_entropy import SystemClock
from birthmark.est import wire
from birthmark.net.bounded_http import HttpService
from birthmark.net.listener import Listeners
from birthmark.net.listener_limits import Limits
from birthmark.net.tls import server_context
from birthmark.pki.certificates import parse_bundle
from conftest import free_port
from support.pki.est_server import EstServer, an_est_server
from support.pki.pki_builders import a_csr, a_key, key_pem

pytestmark = pytest.mark.integration
PORT = free_port()
URL = f"https://localhost:{PORT}/.well-known/est"


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[EstServer]:
    now = SystemClock().now()
    async with an_est_server(directory, now=now) as server:
        root, key = server.ca.hierarchy.root, a_key()
        leaf = issue_server(root, ["localhost", "127.0.0.1"], key.public_key(), serial=77, now=now)
        context = server_context([leaf.parsed, root.certificate.parsed], key)
        listeners = Listeners(SystemClock(), Limits(), lambda *_: None)
        http = HttpService(server.app, Limits())
        await listeners.listen(["127.0.0.1"], PORT, lambda: context, {"http": http.protocol})
        try:
            yield server
        finally:
            await listeners.close()


@contextlib.asynccontextmanager
async def a_running_server(directory: Path) -> AsyncIterator[tuple[EstServer, Path]]:
    async with listening(directory) as server:
        trust = directory / "root.pem"
        trust.write_text(server.ca.hierarchy.root.certificate.pem())
        yield server, trust


async def output_of(*command: object, stdin: bytes = b"") -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*map(str, command), stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(stdin)
    assert process.returncode == 0, err
    return out


async def test_the_second_certificate_of_the_handshake_is_the_trust_anchor(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as (server, _trust):
        shown = await output_of("openssl", "s_client", "-showcerts", "-connect", f"127.0.0.1:{PORT}")
        second = parse_bundle(shown)[1]
        assert second == server.ca.hierarchy.root.certificate


async def test_curl_gets_a_certificate_by_password_and_renews_it_by_certificate(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as (server, trust):
        key = a_key()
        (tmp_path / "req.b64").write_bytes(base64.b64encode(a_csr("device-1", key=key)))
        (tmp_path / "key.pem").write_text(key_pem(key))
        curl = ["curl", "-sS", "--fail", "--cacert", trust, "-H", "Content-Type: application/pkcs10"]
        curl += ["--data-binary", f"@{tmp_path}/req.b64"]
        (first,) = wire.parse_certs_only(await output_of(*curl, "-u", "factory:secret", f"{URL}/simpleenroll"))
        (tmp_path / "cert.pem").write_text(first.pem())
        identity = ["--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem"]
        for operation in ("simpleenroll", "simplereenroll"):
            (again,) = wire.parse_certs_only(await output_of(*curl, *identity, f"{URL}/{operation}"))
            assert again.subject == first.subject
            assert again.thumbprint != first.thumbprint
        assert len(await server.ca.latest()) == 3


async def test_openssl_reads_the_cas_that_curl_fetched(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as (server, trust):
        fetched = base64.b64decode(await output_of("curl", "-sS", "--fail", "--cacert", trust, f"{URL}/cacerts"))
        printed = await output_of("openssl", "pkcs7", "-inform", "DER", "-print_certs", stdin=fetched)
        assert set(parse_bundle(printed)) == set(server.ca.hierarchy.certificates)


async def test_a_refused_request_says_which_header_was_missing(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as (_server, trust):
        shown = await output_of("curl", "-sS", "--cacert", trust, "-d", "x", f"{URL}/simpleenroll")
        assert b"application/pkcs10" in shown
