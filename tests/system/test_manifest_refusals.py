"""What an operator sees when a manifest was tampered with, and how `birthmark why` explains it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.server.servers import RunningServer, warm_environment

pytestmark = pytest.mark.system


@pytest.fixture
def shipment(tmp_path: Path) -> tuple[RunningServer, Path]:
    machine = RunningServer(tmp_path / "data", "127.0.0.1")
    machine.run("manifest", "create", "--out", str(tmp_path / "shipment"), "--count", "3")
    return machine, tmp_path / "shipment"


def verify(machine: RunningServer, directory: Path, entries: list[Any]) -> tuple[int, list[dict[str, Any]], str]:
    file = directory / "tampered.json"
    file.write_text(json.dumps(entries))
    trust = ("--signer", str(directory / "signer.pem"), "--trust-root", str(directory / "root.pem"))
    done = machine.attempt("manifest", "verify", str(file), *trust, "--json")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_broken_signature_is_refused_and_explained(shipment: tuple[RunningServer, Path]) -> None:
    machine, directory = shipment
    entries = json.loads((directory / "manifest.json").read_text())
    unique_id = entries[1]["header"]["uniqueId"]
    payload = entries[1]["payload"]
    entries[1]["payload"] = payload[:100] + ("A" if payload[100] != "A" else "B") + payload[101:]
    code, rows, _ = verify(machine, directory, entries)
    assert code == 7
    assert [row.get("error") for row in rows] == [None, "manifest.signature_broken", None]
    assert machine.why(unique_id)["code"] == "manifest.signature_broken"


def test_a_changed_header_is_refused_and_explained(shipment: tuple[RunningServer, Path]) -> None:
    machine, directory = shipment
    entries = json.loads((directory / "manifest.json").read_text())
    unique_id = entries[2]["header"]["uniqueId"]
    entries[2]["header"]["uniqueId"] = "0123ffffffffffff01"
    code, rows, told = verify(machine, directory, entries)
    assert code == 7
    assert rows[2]["error"] == "manifest.unique_id_changed"
    assert "2 entries verified, 1 refused" in told
    explained = machine.why(unique_id)
    assert explained["code"] == "manifest.unique_id_changed"
    assert "0123ffffffffffff01" in explained["cause"]


def test_an_untouched_manifest_is_good(shipment: tuple[RunningServer, Path]) -> None:
    machine, directory = shipment
    code, rows, _ = verify(machine, directory, json.loads((directory / "manifest.json").read_text()))
    assert code == 0
    assert len(rows) == 3


def test_a_chip_that_is_no_trust_and_go_cannot_be_in_a_rehearsal(tmp_path: Path) -> None:
    script = (
        'eval "$(birthmark chip simulate chip --chip se050)"; '
        "birthmark manifest create --out rehearsal --chip-ca chip/maker-ca.pem"
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=warm_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Code: manifest.name_mismatch" in done.stderr
    assert "a Trust&GO chip" in done.stderr
