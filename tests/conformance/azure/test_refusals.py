"""Each refusal on the Azure side: what the unmodified client sees, and how `birthmark why` explains it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import parse_pem
from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import NOW, Device, a_file_device, run_app, run_python, sends_ten
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

CREDENTIALS = "CredentialError"


def refused(server: RunningServer, device: AzureDevice | Device, code: str) -> dict[str, Any]:
    """Run the device, expect the refusal `code`, and return its explanation."""
    done = sends_ten(device) if isinstance(device, AzureDevice) else run_app(server, device)
    assert done.returncode != 0
    assert CREDENTIALS in done.stderr, done.stderr
    explained = server.cloud.why(device.name)
    assert explained["code"] == code, explained
    assert "?" not in explained["cause"] + explained["fix"], explained
    return explained


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


def test_an_enrollment_that_is_disabled(server: RunningServer, cloud: Cloud) -> None:
    device = cloud.azure_device("refused-disabled")
    script = """
import os
from provisioningserviceclient import ProvisioningServiceClient
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
made = client.get_individual_enrollment("refused-disabled")
made.provisioning_status = "disabled"
client.create_or_update(made)
"""
    assert run_python(script, cloud.environment()).returncode == 0
    refused(server, device, "dps.enrollment_disabled")


@pytest.mark.parametrize("code", ["pki.certificate_expired", "dps.certificate_mismatch"])
def test_a_certificate_that_is_over_or_another_than_the_enrolled_one(
    server: RunningServer, cloud: Cloud, code: str
) -> None:
    device = cloud.azure_device()
    cloud.refuse(code, device)
    refused(server, device, code)


def test_a_certificate_that_is_not_yet_valid(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "refused-early", now=NOW + timedelta(days=10))
    server.run("device", "enroll", device.name, "--cert", str(device.certificate_file), "--force")
    refused(server, device, "pki.certificate_not_yet_valid")


def test_a_group_whose_ca_is_not_verified(server: RunningServer, tmp_path: Path) -> None:
    root = a_ca("unverified root", now=NOW)
    (tmp_path / "root.pem").write_text(root.certificate.pem())
    server.run("dps", "ca", "create", "unverified", str(tmp_path / "root.pem"))
    server.run("device", "enroll-group", "unverified", "--ca-name", "unverified")
    refused(server, a_file_device(tmp_path, "refused-unverified", ca=root), "dps.ca_unverified")


def test_an_intermediate_that_was_not_sent(server: RunningServer, tmp_path: Path) -> None:
    root = a_ca("complete root", now=NOW)
    middle = a_ca("complete middle", parent=root, profile=certificate_profiles.ISSUING_CA, now=NOW)
    (tmp_path / "root.pem").write_text(root.certificate.pem())
    server.run("dps", "ca", "create", "complete", str(tmp_path / "root.pem"), "--verified")
    server.run("device", "enroll-group", "complete", "--ca-name", "complete")
    explained = refused(server, a_file_device(tmp_path, "refused-chain", ca=middle), "dps.intermediate_not_sent")
    assert "complete middle" in explained["cause"]


def test_a_thumbprint_that_the_hub_does_not_know(cloud: Cloud) -> None:
    device, other = cloud.azure_device(at="hub"), cloud.azure_device()
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
    files = {"X509_CERT_FILE": other.certificate_file, "X509_KEY_FILE": other.key_file}
    done = run_python(script, device.environment(**files))
    assert CREDENTIALS in done.stderr
    explained = device.why()
    assert explained["code"] == "iothub.thumbprint_mismatch"
    assert parse_pem(Path(device.certificate_file).read_text()).thumbprint.hex() in explained["cause"]


def test_a_private_key_enrolled_in_the_certificates_place(server: RunningServer, cloud: Cloud) -> None:
    device = cloud.azure_device(at="hub")
    done = server.attempt("device", "enroll", "refused-swapped", "--cert", device.key_file)
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
    assert "400" in run_python(script, device.environment()).stderr
    latest = cloud.why(code="pki.certificate_key_swapped")
    assert "X509_CERT_FILE" in latest["fix"]


def test_a_client_that_does_not_trust_the_server(cloud: Cloud) -> None:
    done = sends_ten(cloud.azure_device(), SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt")
    assert done.returncode != 0
    assert cloud.refusals()[0]["code"] == "tls.server_not_trusted"
