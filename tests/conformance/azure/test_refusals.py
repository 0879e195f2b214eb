"""Each refusal on the Azure side: what the unmodified client sees, and how `birthmark why` explains it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from azure_clients import NOW, Device, a_file_device, run_app, run_python
from birthmark.pki import profiles
from pki_builders import a_ca
from servers import RunningServer

pytestmark = pytest.mark.system

CREDENTIALS = "CredentialError"
DAY = timedelta(days=1)


def refused(
    server: RunningServer, device: Device, code: str, *, sees: str = CREDENTIALS, **environment: str
) -> dict[str, Any]:
    """Run the device, expect the refusal `code`, and return its explanation."""
    done = run_app(server, device, **environment)
    assert done.returncode != 0
    assert sees in done.stderr, done.stderr
    explained = server.why(device.name)
    assert explained["code"] == code, explained
    assert "?" not in explained["cause"] + explained["fix"], explained
    return explained


def enroll(server: RunningServer, device: Device) -> None:
    server.run("device", "enroll", device.name, "--cert", str(device.certificate_file), "--force")


def test_a_device_that_is_not_enrolled(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-unknown")
    explained = refused(server, device, "dps.not_enrolled")
    assert f"`birthmark device enroll --presented {device.holder.certificate.thumbprint.hex()}`" in explained["fix"]
    assert explained["facts"]["thumbprint"] == device.holder.certificate.thumbprint.hex()


def test_an_id_scope_that_is_not_here(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-scope")
    done = run_app(server, device, PROVISIONING_IDSCOPE="0ne00000000")
    assert CREDENTIALS in done.stderr
    assert server.why("0ne00000000")["code"] == "dps.unknown_scope"


def test_a_registration_id_that_is_not_the_common_name(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-name", common_name="another-name")
    explained = refused(server, device, "dps.registration_id_mismatch")
    assert "DPS_X509_REGISTRATION_ID=another-name" in explained["fix"]


def test_an_enrollment_that_is_disabled(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-disabled")
    enroll(server, device)
    script = """
import os
from provisioningserviceclient import ProvisioningServiceClient
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
made = client.get_individual_enrollment("refused-disabled")
made.provisioning_status = "disabled"
client.create_or_update(made)
"""
    assert run_python(script, dict(server.environment)).returncode == 0
    refused(server, device, "dps.enrollment_disabled")


def test_a_certificate_that_has_expired(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-expired", now=NOW - 10 * DAY)
    enroll(server, device)
    refused(server, device, "pki.certificate_expired")


def test_a_certificate_that_is_not_yet_valid(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-early", now=NOW + 10 * DAY)
    enroll(server, device)
    refused(server, device, "pki.certificate_not_yet_valid")


def test_another_certificate_than_the_enrolled_one(server: RunningServer, tmp_path: Path) -> None:
    enrolled = a_file_device(tmp_path, "refused-other")
    enroll(server, enrolled)
    other = a_file_device(tmp_path, "refused-other")
    refused(server, other, "dps.certificate_mismatch")


def test_a_group_whose_ca_is_not_verified(server: RunningServer, tmp_path: Path) -> None:
    root = a_ca("unverified root", now=NOW)
    (tmp_path / "root.pem").write_text(root.certificate.pem())
    server.run("dps", "ca", "create", "unverified", str(tmp_path / "root.pem"))
    server.run("device", "enroll-group", "unverified", "--ca-name", "unverified")
    refused(server, a_file_device(tmp_path, "refused-unverified", ca=root), "dps.ca_unverified")


def test_an_intermediate_that_was_not_sent(server: RunningServer, tmp_path: Path) -> None:
    root = a_ca("complete root", now=NOW)
    middle = a_ca("complete middle", parent=root, profile=profiles.ISSUING_CA, now=NOW)
    (tmp_path / "root.pem").write_text(root.certificate.pem())
    server.run("dps", "ca", "create", "complete", str(tmp_path / "root.pem"), "--verified")
    server.run("device", "enroll-group", "complete", "--ca-name", "complete")
    explained = refused(server, a_file_device(tmp_path, "refused-chain", ca=middle), "dps.intermediate_not_sent")
    assert "complete middle" in explained["cause"]


def test_a_thumbprint_that_the_hub_does_not_know(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-hub")
    enroll(server, device)
    assert run_app(server, device).returncode == 0
    other = a_file_device(tmp_path, "refused-hub")
    script = """
import asyncio, os
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient

async def main():
    x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    host, name = os.environ["PROVISIONING_HOST"], os.environ["DPS_X509_REGISTRATION_ID"]
    await IoTHubDeviceClient.create_from_x509_certificate(x509, host, name).connect()

asyncio.run(main())
"""
    done = run_python(script, other.environment(server))
    assert CREDENTIALS in done.stderr
    explained = server.why("refused-hub")
    assert explained["code"] == "iothub.thumbprint_mismatch"
    assert device.holder.certificate.thumbprint.hex() in explained["cause"]


def test_a_private_key_enrolled_in_the_certificates_place(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-swapped")
    done = server.attempt("device", "enroll", "refused-swapped", "--cert", str(device.key_file))
    assert done.returncode == 1
    assert "swapped" in done.stderr
    script = """
import os
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import *
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
key = open(os.environ["X509_KEY_FILE"]).read()
client.create_or_update(IndividualEnrollment.create(
    registration_id="refused-swapped", attestation=AttestationMechanism.create_with_x509_client_certs(key)))
"""
    assert "400" in run_python(script, device.environment(server)).stderr
    latest = server.rows("why", "--limit", "1")[0]
    assert latest["code"] == "pki.certificate_key_swapped"
    assert "X509_CERT_FILE" in latest["fix"]


def test_a_client_that_does_not_trust_the_server(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-trust")
    done = run_app(server, device, SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt")
    assert done.returncode != 0
    assert server.rows("why", "--limit", "1")[0]["code"] == "tls.server_not_trusted"
