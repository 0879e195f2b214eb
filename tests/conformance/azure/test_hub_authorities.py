"""Devices that a hub knows by certificates of its CAs, by Azure's own SDKs: `certificateAuthority` in the registry."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.azure.clients import Device, a_file_device, run_python
from support.pki.pki_builders import Holder, a_ca
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NOW = datetime.now(UTC)

CLIENT = """
import os, sys
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, X509
name, module = os.environ["NAME"], os.environ.get("MODULE")
x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
kind, more = (IoTHubModuleClient, (module,)) if module else (IoTHubDeviceClient, ())
client = kind.create_from_x509_certificate(x509, os.environ["PROVISIONING_HOST"], name, *more, connection_retry=False)
try:
    client.connect()
    client.send_message("by a CA")
    print("in")
except Exception as error:
    print(type(error).__name__)
client.shutdown()
"""


def connects(server: RunningServer, files: Device, name: str, module: str = "") -> str:
    environment = {**files.environment(server), "NAME": name} | ({"MODULE": module} if module else {})
    done = run_python(CLIENT, environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def maker(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Holder:
    """A CA of the hub, proven as an operator proves it."""
    directory = tmp_path_factory.mktemp("maker")
    held = a_ca("Hub Maker", now=NOW)
    (directory / "ca.pem").write_text(held.certificate.pem())
    server.run("hub", "ca", "create", "hub-maker", str(directory / "ca.pem"), "--verified")
    return held


def test_a_certificate_of_a_verified_ca_with_the_devices_name_lets_it_in(
    server: RunningServer, maker: Holder, tmp_path: Path
) -> None:
    out = run_python(
        """
import os
from azure.iot.hub import IoTHubRegistryManager
service = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
made = service.create_device_with_certificate_authority("of-ca-1", "enabled")
print(made.authentication.type, made.authentication.symmetric_key.primary_key)
service.create_module_with_certificate_authority("of-ca-1", "camera", "")
service.create_device_with_certificate_authority("of-ca-2", "disabled")
changed = service.update_device_with_certificate_authority("of-ca-2", "*", "enabled")
print(changed.status, service.get_module("of-ca-1", "camera").authentication.type)
service.update_module_with_certificate_authority("of-ca-1", "camera", "", "*")
""",
        server.cloud.environment(),
    )
    assert out.stdout.splitlines() == ["certificateAuthority None", "enabled certificateAuthority"], out.stderr
    own = a_file_device(tmp_path, "of-ca-1", ca=maker)
    assert connects(server, own, "of-ca-1") == "in"
    # Another device's name with its own certificate, or its name by a certificate of its module's:
    assert connects(server, own, "of-ca-2") == "CredentialError"
    assert connects(server, own, "of-ca-1", "camera") == "CredentialError"
    camera = a_file_device(tmp_path, "camera", ca=maker, common_name="of-ca-1/camera")
    assert connects(server, camera, "of-ca-1", "camera") == "in"
    assert connects(server, camera, "of-ca-1") == "CredentialError"


def test_letter_case_counts_as_in_the_registry(server: RunningServer, maker: Holder, tmp_path: Path) -> None:
    server.run("hub", "device", "create", "Of-Case", "--by-ca")
    assert connects(server, a_file_device(tmp_path, "lower", ca=maker, common_name="of-case"), "Of-Case") != "in"
    assert connects(server, a_file_device(tmp_path, "right", ca=maker, common_name="Of-Case"), "Of-Case") == "in"


def test_intermediates_come_from_the_device(server: RunningServer, maker: Holder, tmp_path: Path) -> None:
    line = a_ca("Line 7", parent=maker, now=NOW)
    server.run("hub", "device", "create", "of-line", "--by-ca")
    for directory in ("bare", "whole"):
        (tmp_path / directory).mkdir()
    bare = a_file_device(tmp_path / "bare", "of-line", ca=line)
    whole = a_file_device(tmp_path / "whole", "of-line", ca=line, sent=(line,))
    assert connects(server, bare, "of-line") == "CredentialError"
    assert connects(server, whole, "of-line") == "in"


def test_a_ca_counts_when_its_possession_is_proven_and_until_it_goes(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server.run("ca", "init", "--name", "Proven", "--dir", str(tmp_path / "ca"))
    server.run("hub", "ca", "create", "proven", str(tmp_path / "ca" / "root.pem"))
    server.run("hub", "device", "create", "of-proven", "--by-ca")
    server.run("ca", "issue", "of-proven", "--dir", str(tmp_path / "ca"))
    files = a_file_device(tmp_path, "unused")
    files = Device("of-proven", files.holder, tmp_path / "of-proven.cert.pem", tmp_path / "of-proven.key.pem")
    assert connects(server, files, "of-proven") == "CredentialError"
    code = json.loads(server.run("hub", "ca", "code", "proven", "--json").stdout)["code"]
    proof = str(tmp_path / "proof.pem")
    server.run("ca", "verify-possession", code, "--dir", str(tmp_path / "ca"), "--out", proof)
    server.run("hub", "ca", "verify", "proven", proof)
    assert connects(server, files, "of-proven") == "in"
    assert [row["verified"] for row in server.rows("hub", "ca", "ls") if row["name"] == "proven"] == [True]
    server.run("hub", "ca", "rm", "proven", "--yes")
    assert connects(server, files, "of-proven") == "CredentialError"
    (row,) = [one for one in server.rows("why", "--limit", "5") if one["code"] == "iothub.ca_not_trusted"][:1]
    assert "of-proven" in row["cause"]


def test_who_is_connected_by_a_ca_is_dropped_when_it_goes(server: RunningServer, tmp_path: Path) -> None:
    going = a_ca("Going", now=NOW)
    (tmp_path / "ca.pem").write_text(going.certificate.pem())
    server.run("hub", "ca", "create", "going", str(tmp_path / "ca.pem"), "--verified")
    server.run("hub", "device", "create", "of-going", "--by-ca")
    files = a_file_device(tmp_path, "of-going", ca=going)
    script = CLIENT.replace(
        "client.shutdown()", "print('now', flush=True)\nsys.stdin.readline()\nprint(client.connected)"
    )
    environment = {**files.environment(server), "NAME": "of-going"}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as client:
        assert client.stdout is not None
        assert [client.stdout.readline().strip() for _ in range(2)] == ["in", "now"]
        server.run("hub", "ca", "rm", "going", "--yes")
        time.sleep(1)
        assert client.communicate("\n", timeout=20)[0].strip() == "False"


def test_a_ca_of_the_hub_is_none_of_the_provisioning_service(
    server: RunningServer, maker: Holder, tmp_path: Path
) -> None:
    assert "hub-maker" not in {row["name"] for row in server.rows("dps", "ca", "ls")}
    files = a_file_device(tmp_path, "of-hub-alone", ca=maker)
    refused = server.attempt("device", "register", **files.environment(server))
    assert refused.returncode != 0
