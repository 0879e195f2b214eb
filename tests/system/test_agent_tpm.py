"""A device with a TPM, from the factory to the hub and back after every loss: the installed commands and a real TPM."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent.device import AgentOnDevice, until
from support.chips.tpms import SoftwareTpm, a_tpm
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[SoftwareTpm]:
    (tmp_path / "tpm").mkdir()
    with a_tpm(tmp_path / "tpm") as running:
        yield running


def by_tpm(server: RunningServer, root: Path, name: str, tpm: SoftwareTpm, index: int = 0x101010) -> AgentOnDevice:
    """A device that has a TPM and nothing else."""

    def change(text: str) -> str:
        head = text[: text.index("[provisioning.attestation]")]
        attestation = f'[provisioning.attestation]\nmethod = "tpm"\nregistration_id = "{name}"\n'
        return f'{head}{attestation}\n[tpm]\ntcti = "{tpm.tcti}"\nauth_key_index = {index:#x}\n'

    return AgentOnDevice(server, root, name).configure(change)


def on_record(device: AgentOnDevice, *, with_root: bool = True) -> None:
    """Put it on record by what the device itself prints."""
    shown = device.row("tpm")
    root = ["--storage-root-key", shown["storage_root_key"]] if with_root else []
    device.server.run(
        "device", "enroll", shown["registration_id"], "--endorsement-key", shown["endorsement_key"], *root
    )


@pytest.mark.parametrize("with_root", [True, False])
def test_a_device_registers_by_its_tpm_connects_and_comes_back_after_a_restart(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm, with_root: bool
) -> None:
    device = by_tpm(server, tmp_path, f"tpm-{with_root}".lower(), tpm)
    on_record(device, with_root=with_root)
    applied = device.row("apply")
    assert (applied["device_id"], applied["registration_id"]) == (device.name, device.name)
    assert "0x81101010" in applied["key"]
    for _ in range(2):  # the key is in the TPM: the second start does not register again
        with device.start() as running:
            assert until(running, "connected")["device_id"] == device.name
            running.terminate()


def test_a_stranger_with_a_tpm_is_refused_and_the_printed_command_lets_it_in(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    device = by_tpm(server, tmp_path, "tpm-stranger", tpm)
    refused = device.attempt("apply")
    assert refused.returncode == 4
    told = device.attempt("tpm").stderr
    server.run(*told[told.index("birthmark ") :].split()[1:])
    device.row("apply")


def test_a_device_whose_key_is_gone_from_the_tpm_registers_again(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    device = by_tpm(server, tmp_path, "tpm-lost", tpm)
    on_record(device)
    device.row("apply")
    environment = {**os.environ, "TPM2TOOLS_TCTI": tpm.tcti}
    subprocess.run(["tpm2_evictcontrol", "-C", "o", "-c", "0x81101010"], env=environment, check=True)
    with device.start() as running:
        until(running, "connected")
        running.terminate()


def test_a_registration_that_was_cut_before_its_key_was_kept_is_made_again(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    device = by_tpm(server, tmp_path / "one", "tpm-cut", tpm)
    on_record(device)
    device.row("apply")
    by_tpm(server, tmp_path / "two", "tpm-cut", tpm, 0x202020).row("apply")  # a newer key, which went elsewhere
    with device.start() as running:
        assert until(running, "failed")["error"]
        until(running, "connected")
        running.terminate()


def test_another_tpm_is_not_let_in_by_the_name_of_the_first(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    device = by_tpm(server, tmp_path / "ours", "tpm-named", tpm)
    on_record(device)
    device.row("apply")
    with a_tpm() as another:
        clone = by_tpm(server, tmp_path / "theirs", "tpm-named", another)
        refused = clone.attempt("apply")
        assert (refused.returncode, "dps.client_refused" in refused.stderr) == (4, True)


def test_check_and_status_speak_of_the_tpm(server: RunningServer, tmp_path: Path, tpm: SoftwareTpm) -> None:
    device = by_tpm(server, tmp_path, "tpm-checked", tpm)
    on_record(device)
    before = {row["id"]: row for row in _checks(device)}
    assert (before["tpmd-running"]["result"], "no key" in before["tpmd-running"]["details"]) == ("warning", True)
    device.row("apply")
    after = {row["id"]: row for row in _checks(device)}
    assert after["tpmd-running"]["result"] == "ok"
    assert tpm.tcti in after["tpmd-running"]["details"]


def _checks(device: AgentOnDevice) -> list[dict[str, str]]:
    return [json.loads(line) for line in device.attempt("check", "--json").stdout.splitlines()]
