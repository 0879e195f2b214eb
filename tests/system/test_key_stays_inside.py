"""The chip's key never leaves the token: what is on disk and what the device's program opens are reference keys."""

import json
from pathlib import Path

import pytest

from birthmark.demo.harness import app_path
from birthmark.keys.se050_reference_keys import parse_reference_key
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system

WATCHED = """
import json, runpy, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    with open("opened.json", "w") as file:
        json.dump(opened, file)
"""


def private_keys_under(directory: Path) -> list[Path]:
    return [p for p in directory.rglob("*") if p.is_file() and b"PRIVATE KEY-----" in p.read_bytes()]


def test_every_key_file_that_exists_or_is_opened_is_a_reference_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "device"
    device.mkdir()
    monkeypatch.chdir(device)
    with a_new_server(tmp_path) as server:
        chip = a_chip(server, device)
        server.run("chip", "cert", "0xF0000100", "--out", "device.pem", **chip)
        server.run("chip", "refkey", "0xF0000100", "--out", "device.key", **chip)
        server.run("device", "enroll", "--cert", "device.pem")
        name = server.rows("device", "ls")[0]["name"]
        identity = {"DPS_X509_REGISTRATION_ID": name, "X509_CERT_FILE": "device.pem", "X509_KEY_FILE": "device.key"}
        environment = {**server.environment, **chip, **identity}
        (device / "watched.py").write_text(WATCHED)
        program = ("python", "watched.py", str(app_path("azure_device.py")))

        server.run("chip", "exec", "--", *program, **environment)

        assert len(server.rows("hub", "messages")) == 10
        opened = {Path(path) for path in json.loads((device / "opened.json").read_text())}
        assert device / "device.key" in {path.absolute() for path in opened}
        keys = [p for p in opened if p.is_file() and b"PRIVATE KEY-----" in p.read_bytes()]
        for path in {*keys, *private_keys_under(device)}:
            assert parse_reference_key(path.read_bytes()) == 0xF0000100, path

        refused = server.attempt("why", name)
        assert refused.returncode == 3  # nothing was refused so far
        import subprocess
        import sys

        alone = subprocess.run(
            [sys.executable, *program[1:]], env=environment, cwd=device, capture_output=True, timeout=60, check=False
        )
        assert alone.returncode != 0
        explained = server.why(name)
        assert explained["code"] == "tls.key_not_proven"
        assert "chip exec" in explained["fix"]


def a_chip(server: RunningServer, directory: Path) -> dict[str, str]:
    made = json.loads(server.run("chip", "simulate", str(directory / "chip"), "--json").stdout)
    return {name: value for name, value in made.items() if name.isupper()}
