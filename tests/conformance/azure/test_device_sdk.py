"""azure-iot-device, unmodified: register at DPS, connect to the hub, send."""

import subprocess
from pathlib import Path

import pytest

from birthmark.pki import certificate_profiles
from birthmark.testing.cloud import Cloud
from support.azure.clients import NOW, a_file_device, run_app, run_python, sends_ten
from support.pki.pki_builders import Holder, a_ca
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


def a_verified_group(server: RunningServer, directory: Path, name: str) -> tuple[Holder, Holder]:
    """Put a root on record as verified, with a group; return root and intermediate."""
    root = a_ca(f"{name} root", now=NOW)
    middle = a_ca(f"{name} middle", parent=root, profile=certificate_profiles.ISSUING_CA, now=NOW)
    file = directory / f"{name}-root.pem"
    file.write_text(root.certificate.pem())
    server.run("dps", "ca", "create", name, str(file), "--verified")
    server.run("device", "enroll-group", name, "--ca-name", name)
    return root, middle


def state_of(server: RunningServer, name: str) -> str:
    return next(str(row["state"]) for row in server.rows("device", "ls") if row["name"] == name)


def test_a_device_with_its_key_in_a_file_registers_and_sends_ten_messages(
    server: RunningServer,
) -> None:
    device = server.cloud.azure_device("file-key-1")
    assert state_of(server, "file-key-1") == "unassigned"

    done = sends_ten(device)

    assert done.returncode == 0, done.stderr
    assert state_of(server, "file-key-1") == "assigned"
    messages = device.messages()
    assert [m["body"] for m in messages] == [f'{{"number": {n}, "temperature": {20 + n / 10}}}' for n in range(10)]
    assert messages[0]["system"] == {"content-type": "application/json", "content-encoding": "utf-8"}


def test_an_individual_enrollment_may_give_the_device_another_id_and_the_edge_flag(
    birthmark_cloud: Cloud, server: RunningServer, tmp_path: Path
) -> None:
    device = a_file_device(tmp_path, "edge-1")
    server.run("device", "enroll", device.name, "--cert", str(device.certificate_file), "--edge")
    assert run_app(server, device).returncode == 0
    assert [d["device"] for d in server.rows("hub", "device", "ls", "--edge")] == ["edge-1"]


def test_a_device_of_a_group_registers_with_leaf_and_intermediate(server: RunningServer, tmp_path: Path) -> None:
    _, middle = a_verified_group(server, tmp_path, "group-a")
    device = a_file_device(tmp_path, "group-a-1", ca=middle, sent=(middle,))
    done = run_app(server, device)
    assert done.returncode == 0, done.stderr
    thumbprint = next(d["thumbprint"] for d in server.rows("hub", "device", "ls") if d["device"] == "group-a-1")
    assert thumbprint == device.holder.certificate.thumbprint.hex()


def test_a_chain_that_is_sent_shuffled_and_with_extras_is_understood(server: RunningServer, tmp_path: Path) -> None:
    root, middle = a_verified_group(server, tmp_path, "group-b")
    unauthenticated = a_ca("a stranger", now=NOW)
    device = a_file_device(tmp_path, "group-b-1", ca=middle, sent=(unauthenticated, root, middle))
    done = run_app(server, device)
    assert done.returncode == 0, done.stderr


def test_registering_again_keeps_hub_and_device_id(cloud: Cloud) -> None:
    device = cloud.azure_device()
    first, second = sends_ten(device), sends_ten(device)
    assert first.stdout.splitlines()[0] == second.stdout.splitlines()[0]


SYMMETRIC = """
import asyncio, base64, hashlib, hmac, os
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient

async def main():
    name, key = os.environ["NAME"], os.environ["KEY"]
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        os.environ["PROVISIONING_HOST"], name, os.environ["PROVISIONING_IDSCOPE"], key)
    state = (await client.register()).registration_state
    device = IoTHubDeviceClient.create_from_symmetric_key(key, state.assigned_hub, state.device_id)
    await device.connect()
    await device.send_message("by key")
    await device.disconnect()

asyncio.run(main())
"""


def test_a_device_of_a_symmetric_key_group_registers_with_its_derived_key(cloud: Cloud) -> None:
    made = run_python(
        """
import os
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import AttestationMechanism, EnrollmentGroup
from provisioningserviceclient.protocol.models import AttestationMechanism as Raw, SymmetricKeyAttestation
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
raw = Raw(type="symmetricKey", symmetric_key=SymmetricKeyAttestation())
client.create_or_update(EnrollmentGroup.create("keys", raw))
print(client.get_enrollment_group_attestation_mechanism("keys").symmetric_key.primary_key)
""",
        cloud.environment(),
    )
    assert made.returncode == 0, made.stderr
    import base64
    import hashlib
    import hmac

    group_key = base64.b64decode(made.stdout.strip())
    key = base64.b64encode(hmac.digest(group_key, b"by-key-1", hashlib.sha256)).decode()
    done = run_python(SYMMETRIC, cloud.environment(NAME="by-key-1", KEY=key))
    assert done.returncode == 0, done.stderr
    assert [m["body"] for m in cloud.messages("by-key-1")] == ["by key"]


def test_a_new_connection_of_a_device_ends_its_old_one(cloud: Cloud) -> None:
    device = cloud.azure_device(at="hub")
    script = """
import asyncio, os
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient

async def main():
    x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    host, name = os.environ["PROVISIONING_HOST"], os.environ["DPS_X509_REGISTRATION_ID"]
    once = {"auto_connect": False, "connection_retry": False}
    first = IoTHubDeviceClient.create_from_x509_certificate(x509, host, name, **once)
    second = IoTHubDeviceClient.create_from_x509_certificate(x509, host, name)
    dropped = asyncio.Event()
    loop = asyncio.get_running_loop()
    first.on_connection_state_change = lambda: first.connected or loop.call_soon_threadsafe(dropped.set)
    await first.connect()
    await second.connect()
    await asyncio.wait_for(dropped.wait(), 10)
    await second.send_message("still here")
    await second.disconnect()
    await first.shutdown()

asyncio.run(main())
"""
    done = run_python(script, device.environment())
    assert done.returncode == 0, done.stderr
    assert device.messages()[-1]["body"] == "still here"


def test_the_sdk_waits_and_registers_where_a_device_registered_without_a_pause(cloud: Cloud) -> None:
    device = cloud.azure_device("restless-1")
    url = (
        f"https://{cloud.host}:8443/{cloud.id_scope}/registrations/restless-1/register?api-version=2021-06-01&n=[1-60]"
    )
    command = ["curl", "-sS", "--cacert", cloud.ca_file, "-X", "PUT", "-H", "Content-Type: application/json"]
    command += ["--cert", device.certificate_file, "--key", device.key_file, "-w", "%{http_code} ", "-o", "/dev/null"]
    command += ["-d", '{"registrationId": "restless-1"}', url]
    statuses = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert statuses[:30] == ["202"] * 30
    assert statuses[-1] == "429"
    done = sends_ten(device)
    assert done.returncode == 0, done.stderr
