"""What curl sees when EST refuses, and how `birthmark why` explains it."""

import base64
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pki.pki_builders import a_csr
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("est"), '[est.labels.line-7]\nprofile = "device"\n') as running:
        yield running


def enroll(
    server: RunningServer, directory: Path, csr: bytes, password: str | None = None, *, user: str = "", label: str = ""
) -> tuple[int, str]:
    """POST a request with curl; return the status and the body."""
    est, credential = server.endpoints["est"], server.est_credential("est-1")
    netrc, body = directory / "netrc", directory / "csr.b64"
    netrc.touch(mode=0o600)
    netrc.write_text(
        f"machine {server.address} login {user or credential.name} password {password or credential.password}\n"
    )
    body.write_bytes(base64.encodebytes(csr))
    command = ["curl", "-sS", "--netrc-file", str(netrc), "-H", "Content-Type: application/pkcs10"]
    command += ["--data-binary", f"@{body}", "-w", "\n%{http_code}", f"{est['url']}{label}/simpleenroll"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(server.environment), check=True)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def reference_in(text: str) -> str:
    return text.rpartition("Reference: ")[2].strip()


def test_a_request_whose_signature_is_broken(server: RunningServer, tmp_path: Path) -> None:
    csr = bytearray(a_csr("est-1"))
    csr[-1] ^= 1
    status, text = enroll(server, tmp_path, bytes(csr))
    assert status == 400
    explained = server.why(reference_in(text))
    assert explained["code"] == "pki.csr_signature_invalid"


def test_a_request_that_is_no_request(server: RunningServer, tmp_path: Path) -> None:
    status, text = enroll(server, tmp_path, b"0\x03\x02\x01\x05")
    assert status == 400
    assert server.why(reference_in(text))["code"] == "pki.csr_malformed"


def test_a_wrong_password(server: RunningServer, tmp_path: Path) -> None:
    status, text = enroll(server, tmp_path, a_csr("est-1"), password="wrong")
    assert status == 401
    assert server.why(reference_in(text))["code"] == "est.password_wrong"
    assert "wrong\n" not in server.log()


def test_a_tokens_wrong_password_is_mended_by_a_password_of_its_device(server: RunningServer, tmp_path: Path) -> None:
    (token,) = server.rows("pki", "token", "create", "est-2")
    _, text = enroll(server, tmp_path, a_csr("est-2"), password="wrong", user=token["name"])
    explained = server.why(reference_in(text))
    assert token["name"] in explained["cause"]
    assert "`birthmark env --format aziot --registration-id est-2`" in explained["fix"]


def test_the_user_of_an_existing_configuration_is_created_by_the_command_that_is_printed(
    server: RunningServer, tmp_path: Path
) -> None:
    _, text = enroll(server, tmp_path, a_csr("est-3"), user="estuser", password="estpwd")
    command = server.why(reference_in(text))["fix"].split("`")[3]
    (file := tmp_path / "estpwd").touch(0o600)
    file.write_text("estpwd\n")
    _, *words = shlex.split(command.replace("NAME", "est-3").replace("FILE", str(file)))
    server.run(*words)
    status, text = enroll(server, tmp_path, a_csr("est-3"), user="estuser", password="estpwd")
    assert status == 200, text


def test_a_label_that_is_not_there_is_told_with_those_that_are(server: RunningServer, tmp_path: Path) -> None:
    status, text = enroll(server, tmp_path, a_csr("est-1"), label="/line7")
    assert (status, "line-7" in text) == (404, False)
    assert server.why(reference_in(text))["cause"] == "This server has no EST label 'line7'. Existing labels: line-7."
