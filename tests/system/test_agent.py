"""The agent on an aziot config.toml against a real server: the tutorial's steps, and renewal by itself."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.agent.state_directory import DEVICE_ID, AgentPaths
from birthmark.clock_and_entropy import SystemClock
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.pki.certificates import parse_bundle
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.agent.device import AgentOnDevice, until
from support.fakes import SeededEntropy
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
LIFETIME_S = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    config = f"[est]\ndevice_lifetime_s = {LIFETIME_S}\n"
    with a_server(tmp_path_factory.mktemp("agent"), config) as running:
        anchor = second_certificate(running, running.data.parent / "cert2.pem")
        running.run("dps", "ca", "create", "est-root", str(anchor), "--verified")
        running.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
        yield running


def second_certificate(server: RunningServer, path: Path) -> Path:
    """The tutorial: the second certificate that `openssl s_client -showcerts` prints is the EST server's root."""
    show = f"openssl s_client -showcerts -connect {server.address}:8085 </dev/null 2>/dev/null"
    cut = r"awk '/BEGIN CERT/{n++} n==2' | sed -n '/BEGIN CERT/,/END CERT/p'"
    done = subprocess.run(["sh", "-c", f"{show} | {cut} > {path}"], check=True, timeout=20)
    assert done.returncode == 0
    assert path.read_text().count("BEGIN CERTIFICATE") == 1
    return path


def test_the_tutorial_from_check_to_renewal(server: RunningServer, tmp_path: Path) -> None:
    anchor = server.data.parent / "cert2.pem"
    device = AgentOnDevice(server, tmp_path, "edge-1").configure(
        lambda text: text.replace(server.endpoints["trust_bundle"], str(anchor))
    )
    device.run("check")

    applied = device.row("apply")
    assert (applied["device_id"], applied["subject"]) == ("edge-1", "CN=edge-1")
    assert device.thumbprint_at_hub() == applied["thumbprint"]
    checks = {row["id"]: row for row in map(json.loads, device.run("check", "--json").stdout.splitlines())}
    assert {row["result"] for row in checks.values()} <= {"ok", "warning", "skipped"}
    assert checks["host-local-time"]["result"] == "ok"
    assert checks["certs-match-private-keys"]["result"] == "ok"

    running = device.start()
    try:
        first = until(running, "connected")
        assert first["thumbprint"] == applied["thumbprint"]
        assert device.row("status")["connected"]
        refused = device.attempt("apply")
        assert (refused.returncode, "agent.running" in refused.stderr) == (1, True)

        renewed = until(running, "renewed")  # by itself, at 80% of 20 s
        assert renewed["thumbprint"] != first["thumbprint"]
        assert device.thumbprint_at_hub() == renewed["thumbprint"]
        forced = device.row("renew")
        assert until(running, "renewed")["thumbprint"] == forced["thumbprint"] != renewed["thumbprint"]
        device.row("reprovision")
        assert device.row("stop")["stopped"] == running.pid
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.wait()
        assert running.stdout is not None
        running.stdout.close()
    assert server.rows("hub", "messages", "edge-1")

    places = AgentPaths(tmp_path)
    for path in (places.certificate(DEVICE_ID), places.key(DEVICE_ID)):
        assert path.stat().st_mode & 0o777 == 0o600
        path.unlink()
    again = device.row("apply")
    assert again["thumbprint"] not in (applied["thumbprint"], renewed["thumbprint"])
    assert device.thumbprint_at_hub() == again["thumbprint"]


def test_a_device_that_was_off_comes_back_after_expiry(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path, "edge-2").configure()
    first = device.row("apply")
    time.sleep(LIFETIME_S + 2)
    assert "expired" in device.attempt("check", "--offline").stdout
    second = device.row("renew")
    assert second["thumbprint"] != first["thumbprint"]
    assert device.thumbprint_at_hub() == second["thumbprint"]


def test_a_chips_birthmark_introduces_the_device_and_its_key_is_certified(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = a_chip(tmp_path / "chip", monkeypatch)
    signer, root = parse_bundle(chip.manufacturer_certificates.read_bytes())
    anchor, born = tmp_path / "maker-root.pem", tmp_path / "born.pem"
    anchor.write_text(root.pem())
    server.run("pki", "manufacturer", "create", str(anchor), "--any-name")
    server.run("chip", "cert", "0xF0000100", "--out", str(born), **dict(chip.environment))
    born.write_text(born.read_text() + signer.pem())  # the maker sends it; the chip holds only its own
    uri = f"pkcs11:token=SSS_PKCS11;object=sss:F0000100?pin-source=file:{chip.pin_file}"

    def change(text: str) -> str:
        start, end = text.index('username = "'), text.index("[cert_issuance.est.urls]")
        pair = f'bootstrap_identity_cert = "file://{born}"\nbootstrap_identity_pk = "{uri}"\n\n'
        keys = f'[aziot_keys]\npkcs11_lib_path = "{chip.module}"\npkcs11_base_slot = "{uri}"\n\n'
        return text.replace("[provisioning]\n", keys + "[provisioning]\n", 1).replace(text[start:end], pair)

    device = AgentOnDevice(server, tmp_path / "root", "chip-1").configure(change)
    device.server = with_environment(server, chip)
    first = device.row("apply")
    assert "SSS_PKCS11" in first["key"]
    assert "PRIVATE KEY" not in AgentPaths(tmp_path / "root").key(DEVICE_ID).read_text()
    second = device.row("renew")
    assert second["key"] != first["key"]
    assert device.thumbprint_at_hub() == second["thumbprint"]
    listed = server.run("chip", "ls", "--json", **dict(chip.environment)).stdout
    labels = {row["label"] for row in map(json.loads, listed.splitlines()) if row["kind"] == "private key"}
    kept = {label for label in labels if label.startswith(("device-id-", "est-id-"))}
    assert sorted(label.rpartition("-")[0] for label in kept) == ["device-id", "est-id"]  # superseded ones are gone
    assert labels - kept == {"sss:F0000100", "sss:F0000110"}  # and those of birth are not


@pytest.mark.parametrize(
    ("slot", "told"),
    [("pkcs11:token=nobody", "No token matches"), ("pkcs11:token=SSS_PKCS11", "requires a PIN")],
    ids=["no such token", "no PIN"],
)
def test_check_opens_the_token_that_the_configuration_names(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot: str, told: str
) -> None:
    chip = a_chip(tmp_path / "chip", monkeypatch)
    keys = f'[aziot_keys]\npkcs11_lib_path = "{chip.module}"\npkcs11_base_slot = "{slot}"\n\n'
    device = AgentOnDevice(server, tmp_path / "root", "chip-2").configure(lambda text: keys + text)
    device.server = with_environment(server, chip)
    done = device.attempt("check", "--json")
    rows = {row["id"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode != 0
    assert rows["key-pairs-read"]["result"] == "error"
    assert told in rows["key-pairs-read"]["details"]


def dps_check(device: AgentOnDevice) -> dict[str, str]:
    rows = [json.loads(line) for line in device.attempt("check", "--json").stdout.splitlines()]
    (row,) = [row for row in rows if row["id"] == "host-connect-dps-endpoint"]
    return dict(row)


def test_check_finds_an_id_scope_that_the_service_does_not_know(server: RunningServer, tmp_path: Path) -> None:
    scope = server.endpoints["dps"]["id_scope"]
    device = AgentOnDevice(server, tmp_path, "edge-scope").configure(lambda text: text.replace(scope, "0ne00NOBODY"))
    assert device.attempt("apply").returncode != 0
    found = dps_check(device)
    assert found["result"] == "error"
    assert "has no ID scope 0ne00NOBODY" in found["details"]

    device.config.write_text(device.config.read_text().replace("0ne00NOBODY", scope))
    found = dps_check(device)
    assert (found["result"], "enrolled, and not registered yet" in found["details"]) == ("ok", True)
    device.run("apply")
    assert "not registered yet" not in dps_check(device)["details"]


def a_chip(directory: Path, monkeypatch: pytest.MonkeyPatch) -> SoftwareElement:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    made = create_software_element(directory, PROFILES["se050"], now=SystemClock().now(), entropy=SeededEntropy(5))
    stop_library()
    return made


def with_environment(server: RunningServer, chip: SoftwareElement) -> RunningServer:
    """The same server, its commands run with the chip in reach."""

    class WithChip(RunningServer):
        def attempt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
            return super().attempt(*arguments, **{**dict(chip.environment), **environment})

    return WithChip(server.data, server.address, server.config, server.process, server.endpoints)


def test_a_mistake_in_the_configuration_is_wrong_usage_and_changes_nothing(
    server: RunningServer, tmp_path: Path
) -> None:
    device = AgentOnDevice(server, tmp_path, "edge-3").configure(lambda text: text.replace('"80%"', '"80 %"'))
    refused = device.attempt("apply")
    assert refused.returncode == 2
    assert "identity_cert.auto_renew.threshold: is outside the grammar" in refused.stderr
    assert not (tmp_path / "var").exists()
    other = AgentOnDevice(server, tmp_path / "other", "edge-4").configure(
        lambda text: text.replace('source = "dps"', 'source = "none"')
    )
    assert other.attempt("apply").returncode == 6


def test_est_users_are_put_on_record_and_taken_off(server: RunningServer, tmp_path: Path) -> None:
    made = server.rows("pki", "user", "create", "line-1", "--device", "edge-5")[0]
    secret = tmp_path / "password"
    secret.write_text("my own password\n")
    secret.chmod(0o600)
    assert (
        "password"
        not in server.rows("pki", "user", "create", "line-2", "--any-name", "--password-file", str(secret))[0]
    )
    assert {"line-1", "line-2"} <= {row["name"] for row in server.rows("pki", "user", "ls")}
    for odd in ("line/1", "..", "%2E"):
        server.run("pki", "user", "create", odd, "--any-name")
        server.run("pki", "user", "rm", odd, "--yes")
    again = server.attempt("pki", "user", "create", "line-1", "--device", "edge-5")
    assert "est.user_exists" in again.stderr

    def change(text: str) -> str:
        start, end = text.index('username = "'), text.index("[cert_issuance.est.urls]")
        return text.replace(text[start:end], f'username = "line-1"\npassword = "{made["password"]}"\n\n')

    AgentOnDevice(server, tmp_path / "good", "edge-5").configure(change).row("apply")
    unauthenticated = AgentOnDevice(server, tmp_path / "bad", "edge-6").configure(change)
    refused = unauthenticated.attempt("apply")
    assert (refused.returncode, "est.server_forbidden" in refused.stderr) == (4, True)
    server.run("pki", "user", "rm", "line-1", "--yes")
    assert "line-1" not in {row["name"] for row in server.rows("pki", "user", "ls")}


def test_the_agent_loads_no_server_and_no_database() -> None:
    code = (
        "import sys, birthmark.cli.agent, birthmark.cli.device_register_and_connect\n"
        "heavy = {'starlette', 'uvicorn', 'sqlalchemy', 'alembic', 'asyncpg', 'OpenSSL', 'uvloop', 'awscrt'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
