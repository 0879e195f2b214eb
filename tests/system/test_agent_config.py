"""The agent's configuration against a real server: shared keys, files over files, the last good one, the edge CA."""

import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType

from birthmark.agent.state_directory import EDGE_CA, AgentPaths
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.pki.certificates import parse_bundle
from birthmark.secure_elements.softhsm_element import initialize_token
from support.agent.device import AgentOnDevice, until
from support.azure.clients import run_python
from support.server.servers import BIRTHMARK, RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    config = '[est.labels.edge-ca]\nprofile = "edge_ca"\n'
    with a_server(tmp_path_factory.mktemp("agent-config"), config) as running:
        root = running.data / "ca/root.pem"
        running.run("dps", "ca", "create", "est-root", str(root), "--verified")
        yield running


def shared(server: RunningServer, root: Path, name: str) -> AgentOnDevice:
    """A device that the hub knows by a shared key."""
    made = server.rows("hub", "device", "create", name)[0]
    device = AgentOnDevice(server, root, name)
    device.config.parent.mkdir(parents=True)
    device.config.touch(mode=0o600)
    text = f"HostName={made['hub']};DeviceId={name};SharedAccessKey={made['primary_key']}"
    device.config.write_text(f'[provisioning]\nsource = "manual"\nconnection_string = "{text}"\n')
    return device


def test_a_connection_string_is_all_a_device_needs(server: RunningServer, tmp_path: Path) -> None:
    device = shared(server, tmp_path, "shared-1")
    device.row("apply")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        running = device.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
        heard = {manager.recv(4096).decode().split("\n")[0] for _ in range(4)}
        assert {"WATCHDOG=1", "READY=1"} <= heard
    try:
        assert until(running, "connected")["device_id"] == "shared-1"
        memory = Path(f"/proc/{running.pid}/smaps_rollup").read_text().splitlines()
        assert next(int(line.split()[1]) for line in memory if line.startswith("Rss:")) < 60 * 1024
        status = device.row("status")
        assert (status["connected"], status["configuration"]) == (True, "applied")
        device.run("stop")
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.wait()
        assert running.stdout is not None
        running.stdout.close()
    assert server.rows("hub", "messages", "shared-1")


GROUP_KEY = """
import os
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import AttestationMechanism, EnrollmentGroup
from provisioningserviceclient.protocol.models import AttestationMechanism as Raw, SymmetricKeyAttestation
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
raw = Raw(type="symmetricKey", symmetric_key=SymmetricKeyAttestation())
client.create_or_update(EnrollmentGroup.create("keys", raw))
print(client.get_enrollment_group_attestation_mechanism("keys").symmetric_key.primary_key)
"""


@pytest.mark.parametrize("kind", ["file", "token"])
def test_a_shared_key_registers_at_dps_from_a_file_or_a_token(
    server: RunningServer, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_python(GROUP_KEY, dict(server.environment))
    assert made.returncode == 0, made.stderr
    name = f"by-key-{kind}"
    key = hmac.digest(base64.b64decode(made.stdout.strip()), name.encode(), hashlib.sha256)
    device = AgentOnDevice(server, tmp_path, name)
    uri, keys, environment = a_place_for(key, tmp_path, kind, monkeypatch)
    endpoint = f"https://{server.address}:8443"
    device.config.parent.mkdir(parents=True)
    device.config.touch(mode=0o600)
    device.config.write_text(
        f'{keys}[provisioning]\nsource = "dps"\nglobal_endpoint = "{endpoint}"\n'
        f'id_scope = "{server.endpoints["dps"]["id_scope"]}"\n[provisioning.attestation]\n'
        f'method = "symmetric_key"\nregistration_id = "{name}"\nsymmetric_key = {{ uri = "{uri}" }}\n'
    )
    command = [BIRTHMARK, "agent", "apply", "--root", str(tmp_path), "--json"]
    whole = clean_environment(HOME=str(tmp_path), **device.environment, **environment)
    applied = subprocess.run(command, capture_output=True, text=True, env=whole, timeout=60, check=False)
    assert applied.returncode == 0, applied.stderr
    assert json.loads(applied.stdout)["device_id"] == name


def a_place_for(
    key: bytes, directory: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str, dict[str, str]]:
    """Put a shared key into a file, or into a token that signs with it and does not give it away."""
    if kind == "file":
        path = directory / "shared"
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(key).decode())
        return f"file://{path}", "", {}
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    module = initialize_token(directory / "chip", "device", "1234")
    with Pkcs11Token.open(module, label="device", pin=Pin("1234")) as token, token.session() as session:
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.GENERIC_SECRET}
        more = {Attribute.LABEL: "shared", Attribute.SENSITIVE: True, Attribute.SIGN: True, Attribute.TOKEN: True}
        session.create_object({**wanted, **more, Attribute.VALUE: key})
    stop_library()
    keys = f'[aziot_keys]\npkcs11_lib_path = "{module}"\n\n'
    conf = {"SOFTHSM2_CONF": str(directory / "chip/softhsm2.conf")}
    return "pkcs11:token=device;object=shared?pin-value=1234", keys, conf


def test_a_device_comes_up_on_the_last_good_configuration_and_says_so(server: RunningServer, tmp_path: Path) -> None:
    device = shared(server, tmp_path, "shared-2")
    device.row("apply")
    over = device.config.parent / "config.d/90-mistake.toml"
    over.parent.mkdir()
    over.write_text("cloud_timeout_sec = 1\n")
    refused = device.attempt("apply")
    assert (refused.returncode, f"{over}:1: cloud_timeout_sec" in refused.stderr) == (2, True)
    running = device.start()
    try:
        until(running, "connected")
        told = device.row("status")["configuration"]
        assert told.startswith("the last good one, of 20")
        assert f"{over}:1: cloud_timeout_sec" in told
        device.run("stop")
    finally:
        running.kill()
        running.wait()
        assert running.stdout is not None
        running.stdout.close()


def test_an_individual_enrollment_is_warned_of_by_apply_and_check(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path, "single-1").configure()
    device.attempt("apply")  # it gets its certificate, and nobody has put it on record
    server.run("device", "enroll", "--cert", str(AgentPaths(tmp_path).certificate("device-id")))
    applied = device.run("apply")
    (command,) = [part for part in applied.stderr.split("`") if part.startswith("birthmark dps ca create")]
    assert "individual enrollment" in device.run("check", "--offline").stdout
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(tmp_path))
    command = command.replace("birthmark ", f"{Path(sys.executable).parent}/birthmark ")
    typed = command.partition(" && ")[2]  # its CA is on record here already
    subprocess.run(["sh", "-ec", typed], env=environment, check=True, timeout=60)
    assert device.row("renew")["renewals"] == 1
    assert "individual enrollment" not in device.run("check", "--offline").stdout


def test_the_settings_are_listed_with_their_places_and_the_password_hidden(
    server: RunningServer, tmp_path: Path
) -> None:
    device = AgentOnDevice(server, tmp_path, "listed-1").configure()
    rows = {row["key"]: row for row in map(json.loads, device.run("config", "ls", "--json").stdout.splitlines())}
    assert rows["hostname"] == {"key": "hostname", "value": '"listed-1"', "file": str(device.config), "line": 1}
    assert rows["cert_issuance.est.auth.password"]["value"] == "(hidden)"
    settings = device.run("config", "ls", "--doc").stdout.splitlines()
    assert settings[:2] == ["hostname (text) [default: the system's]", "    the device's name"]
    assert any(line.startswith("cert_issuance.est.identity_auto_renew.threshold") for line in settings)


def test_an_edge_ca_is_issued_at_its_own_door_and_openssl_verifies_its_chain(
    server: RunningServer, tmp_path: Path
) -> None:
    url = f"https://{server.address}:8085/.well-known/est/edge-ca"
    device = AgentOnDevice(server, tmp_path, "edge-ca-2").configure(
        lambda text: text + f'"aziot-edged-ca" = "{url}"\n[edge_ca]\nmethod = "est"\n'
    )
    device.attempt("apply")  # nobody has put it on record: its CA is asked for all the same when somebody has
    device.server.run("device", "enroll", "--cert", str(AgentPaths(tmp_path).certificate("device-id")))
    device.run("apply")
    certificate = str(AgentPaths(tmp_path).certificate(EDGE_CA))
    root = server.endpoints["trust_bundle"]
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", root, "-untrusted", certificate, certificate],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert edge_ca_of(device)["renew_at"] is not None


def edge_ca_of(device: AgentOnDevice) -> dict[str, object]:
    """What `status` says of the edge CA."""
    shown = json.loads(device.attempt("status", "--json").stdout)
    return next(one for one in shown["certificates"] if one["id"] == EDGE_CA)


def test_the_quickstart_edge_ca_is_made_and_openssl_believes_it_is_one(server: RunningServer, tmp_path: Path) -> None:
    device = AgentOnDevice(server, tmp_path, "edge-ca-1").configure(
        lambda text: text + "\n[edge_ca]\nauto_generated_edge_ca_expiry_days = 3\n"
    )
    server.run("device", "enroll-group", "edge-group", "--ca-name", "est-root")
    device.run("apply")
    certificate = str(AgentPaths(tmp_path).certificate(EDGE_CA))
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-ext", "basicConstraints"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CA:TRUE, pathlen:0" in shown.stdout


def test_a_renewal_by_hand_is_of_every_certificate_and_says_which(server: RunningServer, tmp_path: Path) -> None:
    server.run("dps", "create", "by-hand")
    server.run("dps", "link", "birthmark", "--dps", "by-hand")
    server.run("dps", "ca", "create", "root", server.endpoints["trust_bundle"], "--verified", "--dps", "by-hand")
    server.run("device", "enroll-group", "all", "--ca-name", "root", "--dps", "by-hand")
    scopes = {row["name"]: str(row["id_scope"]) for row in server.rows("dps", "ls")}
    url = f"{server.endpoints['est']['url']}/edge-ca"
    device = AgentOnDevice(server, tmp_path, "edge-13").configure(
        lambda text: (
            text.replace(scopes["birthmark"], scopes["by-hand"])
            + f'"aziot-edged-ca" = "{url}"\n[edge_ca]\nmethod = "est"\n'
        )
    )
    device.run("apply")
    server.run("pki", "revoke", thumbprint_of_edge_ca(device))  # which the agent cannot know
    before = thumbprint_of_edge_ca(device)
    said = device.run("renew").stderr
    after = thumbprint_of_edge_ca(device)
    assert after != before
    assert f"Renewed aziot-edged-ca: {after}" in said
    assert "Renewed device-id: " in said
    running = device.start()
    try:
        until(running, "connected")
        said = device.run("renew").stderr
        assert f"Renewed aziot-edged-ca: {thumbprint_of_edge_ca(device)}" in said
        assert "Renewed device-id: " in said
        assert thumbprint_of_edge_ca(device) != after
    finally:
        device.run("stop")
        running.wait()
        assert running.stdout is not None
        running.stdout.close()


def thumbprint_of_edge_ca(device: AgentOnDevice) -> str:
    leaf = parse_bundle(AgentPaths(device.root).certificate(EDGE_CA).read_bytes())[0]
    return leaf.thumbprint.hex()
