"""A server whose root's key is on another machine: it serves, renews its own certificate, and says what it lacks."""

import subprocess
from pathlib import Path

import pytest

from birthmark.pki.certificates import parse_bundle
from est_curl import enroll_by_curl
from servers import RunningServer, a_server

pytestmark = pytest.mark.system


def taken_offline(server: RunningServer, directory: Path) -> None:
    """Move the root's key to another machine, and have it sign a CA for servers from there."""
    server.stop()
    ca, root = server.data / "ca", directory / "root-ca"
    subprocess.run(["cp", "-r", ca, root], check=True)
    (ca / "root.key").unlink()
    request, answer = directory / "servers.csr", directory / "servers.answer"
    server.run("ca", "request", "--purpose", "servers", "--dir", str(ca), "--out", str(request))
    server.run("ca", "root", "sign", str(request), "--dir", str(root), "--out", str(answer))
    server.run("ca", "install", str(answer), "--dir", str(ca))


def test_it_serves_issues_and_tells_of_revocation_without_the_roots_key(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        before = (server.data / "trust.pem").read_text()
        taken_offline(server, tmp_path)
        (server.data / "tls" / "server.pem").unlink()  # as when it has run out
        server.start()
        chain = parse_bundle((server.data / "tls" / "server.pem").read_text())
        assert ["Servers CA" in one.subject_text for one in chain] == [False, True, False]
        assert (server.data / "trust.pem").read_text() == before
        leaf = enroll_by_curl(server, tmp_path, "device-1")
        server.run("est", "revoke", leaf.thumbprint.hex())
        assert "BEGIN X509 CRL" in server.run("est", "crl").stdout
        assert "BEGIN X509 CRL" in server.run("est", "crl", "--of", "root").stdout
        served = subprocess.run(
            ["openssl", "s_client", "-connect", f"{server.address}:8085", "-CAfile", server.data / "trust.pem"],
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Verify return code: 0 (ok)" in served.stdout
