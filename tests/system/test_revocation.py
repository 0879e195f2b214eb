"""A certificate that was taken back opens nothing any more, and its live connection ends."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_durability import enroll_by_curl

from azure_clients import Device, run_app
from birthmark.pki.certificates import parse_bundle
from pki_builders import Holder
from servers import RunningServer, a_server

pytestmark = pytest.mark.system

STAY = """
import asyncio, os
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient

async def main():
    x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    host, name = os.environ["PROVISIONING_HOST"], os.environ["DPS_X509_REGISTRATION_ID"]
    device = IoTHubDeviceClient.create_from_x509_certificate(x509, host, name, connection_retry=False)
    dropped, loop = asyncio.Event(), asyncio.get_running_loop()
    device.on_connection_state_change = lambda: device.connected or loop.call_soon_threadsafe(dropped.set)
    await device.connect()
    print("connected", flush=True)
    await asyncio.wait_for(dropped.wait(), 20)
    print("dropped", flush=True)
    await device.shutdown()

asyncio.run(main())
"""


def an_est_device(server: RunningServer, directory: Path, name: str) -> Device:
    leaf = enroll_by_curl(server, directory, name)
    issuing = next(c for c in parse_bundle((server.data / "ca" / "issuing.pem").read_bytes()))
    certificate_file = directory / f"{name}.pem"
    certificate_file.write_text(leaf.pem() + issuing.pem())
    return Device(name, Holder(leaf, None), certificate_file, directory / "est.key")  # type: ignore[arg-type]


def test_a_revoked_certificate_is_refused_everywhere_and_loses_its_connection(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        server.run("dps", "ca", "add", "est-root", str(server.data / "trust.pem"), "--verified")
        server.run("enroll", "group", "est", "--ca-name", "est-root")
        device = an_est_device(server, tmp_path, "taken-back")
        assert run_app(server, device).returncode == 0
        thumbprint = device.holder.certificate.thumbprint.hex()
        (row,) = server.rows("est", "certificates", "taken-back")
        assert (row["thumbprint"], row["revoked"]) == (thumbprint, None)

        command = [sys.executable, "-c", STAY]
        live = subprocess.Popen(command, env=device.environment(server), stdout=subprocess.PIPE, text=True)
        assert live.stdout is not None
        assert live.stdout.readline() == "connected\n"
        server.run("est", "revoke", thumbprint, "--reason", "keyCompromise")
        assert live.stdout.readline() == "dropped\n"
        live.stdout.close()
        live.wait(20)

        done = run_app(server, device)
        assert "CredentialError" in done.stderr
        assert server.why("taken-back")["code"] == "ca.certificate_revoked"
        assert server.rows("est", "certificates", thumbprint)[0]["reason"] == "keyCompromise"
        assert server.run("est", "revoke", thumbprint, check=False).returncode == 1


def a_live_device(server: RunningServer, device: Device) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", STAY]
    live = subprocess.Popen(command, env=device.environment(server), stdout=subprocess.PIPE, text=True)
    assert live.stdout is not None
    assert live.stdout.readline() == "connected\n"
    return live


def test_a_device_whose_key_is_taken_back_loses_its_connection(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        server.run("dps", "ca", "add", "est-root", str(server.data / "trust.pem"), "--verified")
        server.run("enroll", "group", "est", "--ca-name", "est-root")
        device = an_est_device(server, tmp_path, "by-key")
        assert run_app(server, device).returncode == 0
        live = a_live_device(server, device)
        assert live.stdout is not None
        server.run("est", "revoke", "--key-of", str(device.certificate_file), "--reason", "keyCompromise")
        assert live.stdout.readline() == "dropped\n"
        live.stdout.close()
        live.wait(20)
