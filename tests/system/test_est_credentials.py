"""Which name a password opens: one device's file opens that device, and nothing that is held is given away."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.est import wire
from support.pki.pki_builders import a_csr, a_key
from support.server.servers import EstCredential, RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("credentials")) as running:
        yield running


def enroll(server: RunningServer, directory: Path, credential: EstCredential, csr: bytes) -> int:
    netrc, body = directory / "netrc", directory / "csr.b64"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.address} login {credential.name} password {credential.password}\n")
    body.write_bytes(wire.render_csr(csr))
    command = ["curl", "-sS", "--netrc-file", str(netrc), "-H", "Content-Type: application/pkcs10", "-o", "/dev/null"]
    command += ["--data-binary", f"@{body}", "-w", "%{http_code}", server.endpoints["est"]["url"] + "/simpleenroll"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(server.environment), check=True)
    return int(done.stdout)


def for_any_name(server: RunningServer) -> EstCredential:
    server.attempt("pki", "user", "rm", "line", "--yes")
    made = server.rows("pki", "user", "create", "line", "--any-name")[0]
    return EstCredential(made["name"], made["password"])


def test_a_fresh_server_has_no_password_for_any_name(server: RunningServer) -> None:
    assert [user for user in server.rows("pki", "user", "ls") if user["device"] is None] == []
    assert server.endpoints["est"]["username"] is server.endpoints["est"]["password"] is None


def test_a_user_for_every_name_is_made_by_an_explicit_word_only(server: RunningServer) -> None:
    refused = server.attempt("pki", "user", "create", "somebody")
    assert refused.returncode == 2
    assert "--any-name" in refused.stderr


def test_the_printed_configuration_is_the_same_each_time_until_its_user_is_removed(server: RunningServer) -> None:
    first = server.est_credential("gateway:1")
    assert server.est_credential("gateway:1") == first
    server.run("pki", "user", "rm", first.name, "--yes")
    assert server.est_credential("gateway:1").password != first.password


def test_the_aziot_form_and_the_name_of_the_device_go_together(server: RunningServer) -> None:
    assert server.attempt("env", "--format", "aziot").returncode == 2
    assert server.attempt("env", "--registration-id", "x").returncode == 2


def test_one_device_s_password_opens_no_other_name(server: RunningServer, tmp_path: Path) -> None:
    credential = server.est_credential("mine")
    assert enroll(server, tmp_path, credential, a_csr("mine")) == 200
    assert enroll(server, tmp_path, credential, a_csr("yours", key=a_key())) == 403
    assert server.why("yours")["code"] == "ca.name_not_allowed"


def test_a_device_that_lost_its_key_gets_a_new_one_by_its_own_password(server: RunningServer, tmp_path: Path) -> None:
    credential = server.est_credential("begun-anew")
    assert enroll(server, tmp_path, credential, a_csr("begun-anew", key=a_key())) == 200
    assert enroll(server, tmp_path, credential, a_csr("begun-anew", key=a_key())) == 200


@pytest.mark.parametrize("spelling", ["victim", "VICTIM"])
def test_a_password_for_any_name_takes_no_name_that_is_held(
    server: RunningServer, tmp_path: Path, spelling: str
) -> None:
    enroll(server, tmp_path, server.est_credential("victim"), a_csr("victim", key=a_key()))
    assert enroll(server, tmp_path, for_any_name(server), a_csr(spelling, key=a_key())) == 403
    assert server.why(spelling)["code"] == "ca.name_held"


def test_the_printed_fix_lets_the_name_go(server: RunningServer, tmp_path: Path) -> None:
    line = for_any_name(server)
    key = a_key()
    assert enroll(server, tmp_path, line, a_csr("swapped", key=key)) == 200
    assert enroll(server, tmp_path, line, a_csr("swapped", key=key)) == 200  # the answer was lost
    asking = a_csr("swapped", key=a_key())
    assert enroll(server, tmp_path, line, asking) == 403
    assert "`birthmark pki release swapped`" in server.why("swapped")["fix"]
    assert len(server.rows("pki", "release", "swapped")[0]["held_by"]) == 2
    assert enroll(server, tmp_path, line, asking) == 200
    assert server.attempt("pki", "release", "nobody").returncode == 3


def test_everything_of_a_device_is_taken_back_by_its_name_and_its_key_for_good(
    server: RunningServer, tmp_path: Path
) -> None:
    credential, key = server.est_credential("stolen"), a_key()
    for _ in range(2):
        enroll(server, tmp_path, credential, a_csr("stolen", key=key))
    revoked = server.rows("pki", "revoke", "--device", "Stolen", "--reason", "keyCompromise")
    assert {row["reason"] for row in revoked} == {"keyCompromise"}
    assert len(revoked) == 2
    assert enroll(server, tmp_path, credential, a_csr("stolen", key=key)) == 403
    assert server.why("stolen")["code"] == "ca.key_revoked"
    assert enroll(server, tmp_path, credential, a_csr("stolen", key=a_key())) == 200
    assert server.attempt("pki", "revoke").returncode == 2


def test_the_key_of_a_certificate_from_elsewhere_is_taken_back_too(server: RunningServer, tmp_path: Path) -> None:
    server.run("ca", "init", "--name", "maker", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", "foreign", "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    done = server.run("pki", "revoke", "--key-of", str(tmp_path / "foreign.cert.pem"))
    assert "issued no certificate" in done.stderr
