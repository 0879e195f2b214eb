"""Azure's device SDK for Java as a device of IoT Hub, over each of its protocols: proton-j speaks AMQP."""

from pathlib import Path

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import needs_443
from support.languages.programs import Program, another_ca, of_hub_sdk
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
SDK = Program("java", "HubDevice")
OVER = pytest.mark.parametrize("protocol", ["MQTT", "MQTT_WS", "AMQPS", "AMQPS_WS", "HTTPS"])
WITH_SUBSCRIPTIONS = pytest.mark.parametrize("protocol", ["MQTT", "AMQPS"])


@pytest.fixture
def device(birthmark_cloud: Cloud) -> AzureDevice:
    """A device of the hub with a certificate."""
    return birthmark_cloud.azure_device(at="hub")


@OVER
def test_a_device_with_a_certificate_sends_telemetry(device: AzureDevice, protocol: str) -> None:
    if protocol in {"MQTT_WS", "AMQPS_WS", "HTTPS"}:
        needs_443(device.cloud)
    SDK.run("publish", of_hub_sdk(device, protocol, PAYLOAD="21"))
    assert [message["body"] for message in device.messages(at_least=1)] == ["21"]


@OVER
def test_a_device_with_a_symmetric_key_sends_telemetry(birthmark_cloud: Cloud, protocol: str) -> None:
    if protocol in {"MQTT_WS", "AMQPS_WS", "HTTPS"}:
        needs_443(birthmark_cloud)
    device = birthmark_cloud.azure_device(at="hub", auth="key")
    SDK.run("publish", of_hub_sdk(device, protocol, PAYLOAD="21"))
    assert [message["body"] for message in device.messages(at_least=1)] == ["21"]


@WITH_SUBSCRIPTIONS
def test_a_device_reports_to_its_twin(device: AzureDevice, protocol: str) -> None:
    assert SDK.run("twin", of_hub_sdk(device, protocol, PAYLOAD="open")) == {"reported": "open"}


@WITH_SUBSCRIPTIONS
def test_a_device_receives_a_message_and_answers_a_direct_method(
    server: RunningServer, device: AzureDevice, protocol: str
) -> None:
    with SDK.start("listen", of_hub_sdk(device, protocol)) as running:
        running.until("subscribed")
        server.run("hub", "c2d", device.name, "open the valve")
        assert running.until("payload")["payload"] == "open the valve"
        (result,) = server.rows("hub", "method", device.name, "open")
        assert result["payload"] == {"done": True}
        assert running.until("method")["method"] == "open"


@WITH_SUBSCRIPTIONS
@pytest.mark.parametrize("code", ["iothub.device_disabled", "iothub.thumbprint_mismatch", "ca.certificate_revoked"])
def test_a_refused_device_does_not_connect(
    birthmark_cloud: Cloud, device: AzureDevice, protocol: str, code: str
) -> None:
    birthmark_cloud.refuse(code, device)
    assert SDK.fail("publish", of_hub_sdk(device, protocol, PAYLOAD="21"))
    assert birthmark_cloud.why(code=code)


@WITH_SUBSCRIPTIONS
def test_a_client_that_trusts_another_ca_does_not_connect(device: AzureDevice, protocol: str, tmp_path: Path) -> None:
    assert SDK.fail("publish", of_hub_sdk(device, protocol, PAYLOAD="21") | another_ca(tmp_path))
