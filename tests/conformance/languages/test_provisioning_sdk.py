"""Azure's provisioning device SDK for Java as a device of DPS, over each of its protocols."""

from pathlib import Path

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import needs_443
from support.languages.programs import Program, Settings, another_ca, certificate_of, in_token

pytestmark = pytest.mark.system
SDK = Program("java", "Provisioning")
OVER = pytest.mark.parametrize("protocol", ["MQTT", "MQTT_WS", "AMQPS", "AMQPS_WS", "HTTPS"])
WITHOUT_443 = pytest.mark.parametrize("protocol", ["MQTT", "AMQPS"])


def settings(device: AzureDevice, protocol: str) -> Settings:
    if protocol not in {"MQTT", "AMQPS"}:
        needs_443(device.cloud)
    known = device.identity
    return {
        "PROTOCOL": protocol,
        "HOST": known.provisioning_host,
        "ID_SCOPE": known.id_scope,
        "REGISTRATION_ID": known.registration_id,
        "CA_FILE": device.cloud.ca_file,
        **({"SYMMETRIC_KEY": known.symmetric_key} if known.symmetric_key else {}),
        **certificate_of(device),
    }


def assignment(device: AzureDevice) -> dict[str, str]:
    return {"device": device.identity.device_id, "hub": device.identity.hub_host}


@OVER
@pytest.mark.parametrize("auth", ["x509", "key"])
def test_a_device_registers(birthmark_cloud: Cloud, protocol: str, auth: str) -> None:
    device = birthmark_cloud.azure_device(auth=auth)
    assert SDK.run("register", settings(device, protocol)) == assignment(device)


@OVER
def test_a_device_with_its_key_in_a_token_registers(birthmark_cloud: Cloud, protocol: str) -> None:
    chip = birthmark_cloud.chip()
    device = birthmark_cloud.azure_device(by=chip)
    assert SDK.run("register", settings(device, protocol) | in_token(chip)) == assignment(device)


@WITHOUT_443
def test_a_device_sends_a_payload_with_its_registration(birthmark_cloud: Cloud, protocol: str) -> None:
    device = birthmark_cloud.azure_device()
    payload = {"PAYLOAD": '{"model": 7}'}
    assert SDK.run("register", settings(device, protocol) | payload) == assignment(device)


@WITHOUT_443
@pytest.mark.parametrize("code", ["dps.enrollment_disabled", "dps.certificate_mismatch", "ca.certificate_revoked"])
def test_a_refused_device_does_not_register(birthmark_cloud: Cloud, protocol: str, code: str) -> None:
    device = birthmark_cloud.azure_device()
    birthmark_cloud.refuse(code, device)
    assert SDK.fail("register", settings(device, protocol))
    assert birthmark_cloud.why(code=code)


@WITHOUT_443
def test_a_device_with_a_wrong_key_does_not_register(birthmark_cloud: Cloud, protocol: str) -> None:
    device = birthmark_cloud.azure_device(auth="key")
    wrong = {"SYMMETRIC_KEY": birthmark_cloud.azure_device(auth="key").symmetric_key}
    assert SDK.fail("register", settings(device, protocol) | wrong)
    assert birthmark_cloud.why()["code"].startswith("sas.")


@WITHOUT_443
def test_a_client_that_trusts_another_ca_does_not_connect(
    birthmark_cloud: Cloud, protocol: str, tmp_path: Path
) -> None:
    device = birthmark_cloud.azure_device()
    assert SDK.fail("register", settings(device, protocol) | another_ca(tmp_path))
    assert birthmark_cloud.why(code="tls.server_not_trusted")
