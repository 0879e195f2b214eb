"""What was acknowledged survives `kill -9`, and the server that comes back serves the same devices."""

import sqlite3
import subprocess
from pathlib import Path

import pytest

from azure_clients import a_file_device, run_app
from birthmark.pki.certificates import parse_bundle
from servers import RunningServer, a_server

pytestmark = pytest.mark.system


def test_enrollment_registration_and_messages_survive_kill_9(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        first = a_file_device(tmp_path, "killed-1")
        server.run("enroll", "device", "killed-1", "--cert", str(first.certificate_file))
        server.kill()
        server.start()
        assert run_app(server, first).returncode == 0
        server.kill()
        server.start()
        assert [row["state"] for row in server.rows("enroll", "list")] == ["assigned"]
        assert [row["device"] for row in server.rows("hub", "devices")] == ["killed-1"]
        assert len(server.rows("hub", "messages", "killed-1")) == 10
        again = run_app(server, first)
        assert again.returncode == 0, again.stderr
        assert len(server.rows("hub", "messages", "killed-1")) == 20


def test_a_certificate_that_est_gave_out_is_in_the_inventory_after_kill_9(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        issued = enroll_by_curl(server, tmp_path, "killed-est-1")
        server.kill()
        database = sqlite3.connect(server.data / "birthmark.db")
        rows = database.execute("SELECT thumbprint FROM ca_certificates").fetchall()
        database.close()
        assert issued.thumbprint in {row[0] for row in rows}


def enroll_by_curl(server: RunningServer, directory: Path, name: str):
    """Enroll by EST with openssl and curl alone, and return the certificate."""
    key, csr, user = directory / "est.key", directory / "est.csr", directory / "est.netrc"
    environment = dict(server.environment)
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-subj", f"/CN={name}", "-outform", "DER", "-out", str(csr)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    subprocess.run(["openssl", "base64", "-in", str(csr), "-out", str(csr) + ".b64"], check=True, env=environment)
    est, credential = server.endpoints["est"], server.est_credential(name)
    user.write_text(f"machine {server.address} login {credential.name} password {credential.password}\n")
    user.chmod(0o600)
    post = ["curl", "-sSf", "--netrc-file", str(user), "-H", "Content-Type: application/pkcs10"]
    post += ["--data-binary", f"@{csr}.b64", "-o", str(directory / "est.p7"), est["url"] + "/simpleenroll"]
    done = subprocess.run(post, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    pem = "-----BEGIN PKCS7-----\n" + (directory / "est.p7").read_text().strip() + "\n-----END PKCS7-----\n"
    out = subprocess.run(
        ["openssl", "pkcs7", "-print_certs"], input=pem, check=True, capture_output=True, text=True, env=environment
    )
    return parse_bundle(out.stdout)[0]
