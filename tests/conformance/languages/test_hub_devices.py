"""MQTT clients of other languages as devices of IoT Hub, by the topics that a hub documents."""

from pathlib import Path

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.languages.programs import Program, Signer, another_ca, in_token, of_hub_device, with_token
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
TWIN = {"SUBSCRIBE": "$iothub/twin/res/#", "PUBLISH": "$iothub/twin/GET/?$rid=1"}
METHODS = {"SUBSCRIBE": "$iothub/methods/POST/#", "PUBLISH": "$iothub/methods/res/200/", "PAYLOAD": '{"done":true}'}


@pytest.fixture
def device(birthmark_cloud: Cloud) -> AzureDevice:
    """A device of the hub with a certificate."""
    return birthmark_cloud.azure_device(at="hub")


def telemetry(device: AzureDevice) -> dict[str, str]:
    return {"PUBLISH": f"devices/{device.name}/messages/events/", "PAYLOAD": "21"}


def bodies(device: AzureDevice) -> list[str]:
    return [message["body"] for message in device.messages(at_least=1)]


def test_a_device_with_a_certificate_sends_telemetry(device: AzureDevice, hub_client: Program) -> None:
    hub_client.run("publish", of_hub_device(device) | telemetry(device))
    assert bodies(device) == ["21"]


def test_a_device_with_a_symmetric_key_sends_telemetry(birthmark_cloud: Cloud, hub_client: Program) -> None:
    device = birthmark_cloud.azure_device(at="hub", auth="key")
    hub_client.run("publish", with_token(device) | telemetry(device))
    assert bodies(device) == ["21"]


def test_a_device_signs_with_a_key_in_a_token(birthmark_cloud: Cloud, hub_signer: Signer) -> None:
    client, kind = hub_signer
    chip = birthmark_cloud.chip(kind=kind)
    device = birthmark_cloud.azure_device(at="hub", by=chip)
    client.run("publish", of_hub_device(device) | in_token(chip) | telemetry(device))
    assert bodies(device) == ["21"]


def test_a_device_reads_its_twin(device: AzureDevice, hub_client: Program) -> None:
    answer = hub_client.run("exchange", of_hub_device(device) | TWIN)
    assert answer["topic"] == "$iothub/twin/res/200/?$rid=1"


def test_a_device_receives_a_cloud_to_device_message(
    server: RunningServer, device: AzureDevice, hub_client: Program
) -> None:
    inbox = {"SUBSCRIBE": f"devices/{device.name}/messages/devicebound/#"}
    with hub_client.start("listen", of_hub_device(device) | inbox) as running:
        running.until("subscribed")
        server.run("hub", "c2d", device.name, "open the valve")
        assert running.until("topic")["payload"] == "open the valve"


def test_a_device_answers_a_direct_method(server: RunningServer, device: AzureDevice, hub_client: Program) -> None:
    with hub_client.start("answer", of_hub_device(device) | METHODS) as running:
        running.until("subscribed")
        (result,) = server.rows("hub", "method", device.name, "open")
        assert result["payload"] == {"done": True}
        assert running.until("topic")["topic"].startswith("$iothub/methods/POST/open/?$rid=")


def test_a_client_that_trusts_another_ca_does_not_connect(
    device: AzureDevice, hub_client: Program, tmp_path: Path
) -> None:
    settings = of_hub_device(device) | another_ca(tmp_path) | telemetry(device)
    assert "certif" in hub_client.fail("publish", settings).lower()


@pytest.mark.parametrize("code", ["iothub.device_disabled", "iothub.thumbprint_mismatch", "ca.certificate_revoked"])
def test_a_refused_device_does_not_connect(
    birthmark_cloud: Cloud, device: AzureDevice, hub_client: Program, code: str
) -> None:
    birthmark_cloud.refuse(code, device)
    assert hub_client.fail("publish", of_hub_device(device) | telemetry(device))
    assert birthmark_cloud.why(code=code)
