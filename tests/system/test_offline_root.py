"""A server whose root's key is on another machine: it serves, renews its own certificate, and says what it lacks."""

import subprocess
from pathlib import Path

import pytest

from birthmark.pki.certificates import parse_bundle
from support.agent.rollover_fleet import Fleet
from support.pki.est_curl import enroll_by_curl
from support.server.servers import RunningServer, a_server

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
        server.run("pki", "revoke", leaf.thumbprint.hex())
        assert "BEGIN X509 CRL" in server.run("pki", "crl").stdout
        assert "BEGIN X509 CRL" in server.run("pki", "crl", "--of", "root").stdout
        served = subprocess.run(
            ["openssl", "s_client", "-connect", f"{server.address}:8085", "-CAfile", server.data / "trust.pem"],
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Verify return code: 0 (ok)" in served.stdout


def next_root(server: RunningServer, directory: Path) -> None:
    """Make another root where the first one's key is, and below it what the server needs."""
    ca, root, new = server.data / "ca-next", directory / "next-root", directory / "next.answer"
    server.run("ca", "init", "--name", "Birthmark", "--dir", str(root))
    server.run(
        "ca", "init", "--name", "Birthmark", "--offline-root", "--dir", str(ca), "--out", str(directory / "1.csr")
    )
    for number, purpose in enumerate(("issuing", "servers"), 1):
        request = directory / f"{number}.csr"
        if purpose != "issuing":
            server.run("ca", "request", "--purpose", purpose, "--dir", str(ca), "--out", str(request))
        server.run("ca", "root", "sign", str(request), "--dir", str(root), "--out", str(new))
        server.run("ca", "install", str(new), "--dir", str(ca))


def test_its_root_is_exchanged_by_files_from_where_both_keys_are(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        taken_offline(server, tmp_path)
        server.start()
        fleet = Fleet.enrolled(server, tmp_path / "devices", 4)
        before = fleet.devices[0].anchors
        refused = server.attempt("pki", "rollover", "start", "--yes")
        assert (refused.returncode != 0, "ca root link" in refused.stderr) == (True, True)
        assert not list(server.data.glob("ca-*"))

        next_root(server, tmp_path)
        refused = server.attempt("pki", "rollover", "start", "--yes")
        assert (refused.returncode != 0, "ca root link" in refused.stderr) == (True, True)
        links = tmp_path / "links.pem"
        server.run(
            "ca", "root", "link", str(tmp_path / "root-ca"), "--dir", str(tmp_path / "next-root"), "--out", str(links)
        )
        server.run("ca", "install", str(links), "--dir", str(server.data / "ca-next"))

        for words in (("start",), ("next",)):
            server.run("pki", "rollover", *words, "--yes")
            fleet.renew(fleet.devices)
        (told,) = server.rows("pki", "rollover", "next", "--yes")
        fleet.renew(fleet.devices)
        assert (told["state"], fleet.failures) == ("the new alone", [])
        assert fleet.devices[0].anchors != before
        assert all(device.is_verified() for device in fleet.devices)
        server.stop()
        server.start()
        fleet.renew(fleet.devices)
        assert fleet.failures == []


def test_links_from_a_root_that_the_server_does_not_have_are_refused(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        next_root(server, tmp_path)
        server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "another"))
        links = tmp_path / "links.pem"
        server.run(
            "ca", "root", "link", str(tmp_path / "another"), "--dir", str(tmp_path / "next-root"), "--out", str(links)
        )
        refused = server.attempt("ca", "install", str(links), "--dir", str(server.data / "ca-next"))
        assert "ca.links_refused" in refused.stderr
        assert not list((server.data / "ca-next").glob("*-with-*"))
