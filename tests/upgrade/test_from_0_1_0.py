"""A data directory of version 0.1.0 opens, and everybody who relied on it goes on (made by `make.py`)."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.est import wire
from birthmark.pki.certificates import parse_pem
from pki_builders import a_csr, a_key
from servers import RunningServer, clean_environment

pytestmark = pytest.mark.system
ARCHIVE = Path(__file__).with_name("0.1.0.tar.gz")
LONG_S = 10**9


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("upgrade")
    subprocess.run(["tar", "-xzf", str(ARCHIVE), "-C", str(made), "--no-same-owner"], check=True)
    (made / "data").chmod(0o700)
    return made


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[RunningServer]:
    address = json.loads((directory / "facts.json").read_text())["address"]
    config = directory / "birthmark.toml"  # the archive is older than the day that messages are kept
    config.write_text(f"[telemetry]\nkeep_s = {LONG_S}\n")
    running = RunningServer(directory / "data", address, config).start()
    yield running
    running.stop()


def send(server: RunningServer, directory: Path, name: str) -> None:
    files = ["--cert", str(directory / f"{name}.cert.pem"), "--key", str(directory / f"{name}.key.pem")]
    server.run("device", "send", "after the upgrade", *files, **server.environment)


@pytest.mark.parametrize("name", ["by-group", "by-itself"])
def test_telemetry_of_the_old_version_is_still_read(server: RunningServer, name: str) -> None:
    (message,) = server.rows("hub", "messages", name)
    assert (message["device"], message["body"]) == (name, "hello")


@pytest.mark.parametrize("name", ["by-group", "by-itself"])
def test_devices_register_again_and_send(server: RunningServer, directory: Path, name: str) -> None:
    send(server, directory, name)
    assert [row["body"] for row in server.rows("hub", "messages", name)] == ["hello", "after the upgrade"]


def post(server: RunningServer, directory: Path, operation: str, csr: bytes, *more: str) -> int:
    body = directory / "csr.b64"
    body.write_bytes(wire.render_csr(csr))
    command = ["curl", "-sS", "--cacert", str(server.data / "trust.pem"), "-H", "Content-Type: application/pkcs10"]
    command += ["-o", "/dev/null", "-w", "%{http_code}", "--data-binary", f"@{body}", *more]
    done = subprocess.run(
        [*command, f"{server.endpoints['est']['url']}/{operation}"],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(),
    )
    return int(done.stdout)


def by_password(server: RunningServer, directory: Path) -> tuple[str, str]:
    est, netrc = server.endpoints["est"], directory / "netrc"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.address} login {est['username']} password {est['password']}\n")
    return "--netrc-file", str(netrc)


def test_the_first_user_s_password_still_opens_names_that_nobody_holds(server: RunningServer, directory: Path) -> None:
    credential = by_password(server, directory)
    assert server.endpoints["est"]["username"] == "estuser"
    assert post(server, directory, "simpleenroll", a_csr("newcomer", key=a_key()), *credential) == 200
    assert post(server, directory, "simpleenroll", a_csr("EST-device", key=a_key()), *credential) == 403


def test_a_device_renews_its_certificate_with_the_subject_it_got(server: RunningServer, directory: Path) -> None:
    pem = "-----BEGIN PKCS7-----\n" + (directory / "est-device.p7").read_text().strip() + "\n-----END PKCS7-----\n"
    command = ["openssl", "pkcs7", "-print_certs"]
    leaf = subprocess.run(command, input=pem, capture_output=True, text=True, check=True).stdout
    (directory / "est-device.cert.pem").write_text(parse_pem(leaf[leaf.index("-----BEGIN") :]).pem())
    key = ["-key", str(directory / "est-device.key.pem")]
    csr = subprocess.run(
        ["openssl", "req", "-new", *key, "-subj", "/O=Old/CN=est-device", "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    shown = ["--cert", str(directory / "est-device.cert.pem"), "--key", str(directory / "est-device.key.pem")]
    assert post(server, directory, "simplereenroll", csr, *shown) == 200


def test_a_key_that_was_revoked_before_stays_revoked(server: RunningServer, directory: Path) -> None:
    key = ["-key", str(directory / "est-revoked.key.pem")]
    command = ["openssl", "req", "-new", *key, "-subj", "/CN=est-revoked", "-outform", "DER"]
    csr = subprocess.run(command, capture_output=True, check=True).stdout
    assert post(server, directory, "simpleenroll", csr, *by_password(server, directory)) == 403


def test_the_audit_chain_goes_on_and_is_signed_from_now_on(server: RunningServer) -> None:
    (told,) = server.rows("server", "audit", "verify")
    assert told["head"]["seq"] == told["rows"]
