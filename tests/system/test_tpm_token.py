"""A TPM by tpm2-pkcs11 is a token like any other: every element command, and programs with its key."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chips.tpm_tokens import TpmToken, a_tpm_token
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
NODE = Path(__file__).parents[1] / "node"
HTTPS = """
const fs = require('fs'), https = require('https');
const [url, cert, key] = process.argv.slice(1);
const body = JSON.stringify({registrationId: process.env.NAME});
const options = {method: 'POST', headers: {'content-type': 'application/json', 'content-length': body.length},
  cert: fs.readFileSync(cert), key: fs.readFileSync(key)};
https.request(url, options, (answer) => { answer.on('data', (piece) => process.stdout.write(piece)); }).end(body);
"""
REQUESTS = """
import os, sys, requests
url, cert, key = sys.argv[1:]
answer = requests.post(url, json={"registrationId": os.environ["NAME"]}, cert=(cert, key), timeout=20)
print(answer.text)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TpmToken]:
    with a_tpm_token(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture(scope="module")
def factory(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("factory") / "ca"
    server.run("ca", "init", "--name", "Factory", "--dir", str(directory))
    return directory


def test_its_keys_are_listed_made_and_proven(server: RunningServer, tpm: TpmToken) -> None:
    before = {(row["kind"], row.get("label")) for row in rows(server, tpm, "chip", "ls")}
    assert {("private key", "device"), ("private key", "rsa"), ("public key", "device")} <= before
    for label, algorithm in (("second", "p256"), ("third", "rsa2048")):
        server.run("chip", "keygen", label, "--algorithm", algorithm, **tpm.environment)
        proof = tpm.directory / f"{label}.json"
        nonce = ("--nonce", "chosen by the asker")
        proof.write_text(server.run("chip", "prove", label, *nonce, **tpm.environment).stdout)
        assert "holds" in server.run("chip", "prove", "--check", str(proof), *nonce).stdout


def test_data_is_kept_and_foreign_data_is_not_overwritten(server: RunningServer, tpm: TpmToken) -> None:
    file = tpm.directory / "data"
    file.write_text("somebody's")
    server.run("chip", "write", str(file), "--object", "notes", **tpm.environment)
    assert server.run("chip", "show", "--object", "notes", **tpm.environment).stdout == "somebody's"
    file.write_text("ours")
    assert server.attempt("chip", "write", str(file), "--object", "notes", **tpm.environment).returncode == 1
    server.run("chip", "write", str(file), "--object", "notes", "--replace-data", **tpm.environment)
    assert server.run("chip", "show", "--object", "notes", **tpm.environment).stdout == "ours"


@pytest.mark.parametrize("key", ["device", "rsa"])
def test_a_device_gets_its_certificate_registers_and_sends(
    server: RunningServer, tpm: TpmToken, factory: Path, key: str
) -> None:
    name = f"tpm-{key}"
    cert = a_certificate(server, tpm, factory, key, name)
    assert server.run("chip", "cert", key, **tpm.environment).stdout in cert.read_text()
    server.run("device", "enroll", "--cert", str(cert))
    environment = {**server.environment, **tpm.environment}
    server.run("device", "register", "--chip", "--key", key, **environment)
    server.run("device", "send", "hello", "--chip", "--key", key, **environment)
    assert [row["body"] for row in server.rows("hub", "messages", name)] == ["hello"]

    server.run("chip", "refkey", key, "--uri", "--out", str(tpm.directory / f"{key}.uri"), **tpm.environment)
    dps = server.endpoints["dps"]
    url = f"https://{dps['host']}:{dps['https_port']}/{dps['id_scope']}/registrations/{name}?api-version=2021-06-01"
    files = (str(cert), str(tpm.directory / f"{key}.uri"))
    body = ("-d", json.dumps({"registrationId": name}), "-H", "Content-Type: application/json")
    for options, program in (
        ((), ("curl", "-sS", *body, "--cert", files[0], "--key", files[1], url)),
        (("--key", key), ("curl", "-sS", *body, url)),
        (("--key", key, "--how", "proxy"), ("curl", "-sS", *body, url)),
        ((), ("node", "-e", HTTPS, url, *files)),
        ((), ("python", "-c", REQUESTS, url, *files)),
    ):
        done = server.run("chip", "exec", *options, "--", *program, **environment, NAME=name)
        assert json.loads(done.stdout)["deviceId"] == name, program


def test_a_board_with_a_tpm_is_taken_in(server: RunningServer, tpm: TpmToken, factory: Path) -> None:
    server.run("chip", "keygen", "intake", **tpm.environment)
    cert = a_certificate(server, tpm, factory, "intake", "tpm-intake")
    root, station = factory / "root.pem", tpm.directory / "station"
    given = ("--key", "intake", "--cert", str(cert), "--trust-root", str(root), "--station", str(station))
    assert server.run("chip", "intake", "BOARD-0001", *given, **tpm.environment).stdout.startswith("TAKEN    BOARD")


def a_certificate(server: RunningServer, tpm: TpmToken, factory: Path, key: str, name: str) -> Path:
    """Have the key's certificate issued by the factory's CA, and write it to the TPM's store."""
    request, cert = tpm.directory / f"{name}.csr", tpm.directory / f"{name}.pem"
    server.run("chip", "csr", key, "--cn", name, "--out", str(request), **tpm.environment)
    server.run("ca", "sign", str(request), "--dir", str(factory), "--out", str(cert))
    server.run("chip", "write", str(cert), "--key", key, **tpm.environment)
    return cert


def rows(server: RunningServer, tpm: TpmToken, *command: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.run(*command, "--json", **tpm.environment).stdout.splitlines()]
