"""MQTT clients of other languages come back by themselves after their server restarted."""

import pytest

from support.languages.programs import Program, messages_of, of_hub_device, of_hub_sdk, of_thing
from support.server.servers import RunningServer

pytestmark = [pytest.mark.system, pytest.mark.serve]


def test_an_aws_device_subscribes_again_after_a_restart(server: RunningServer, aws_client: Program) -> None:
    settings = of_thing(server.cloud.aws_thing()) | messages_of("site/1", "")
    with aws_client.start("listen", settings) as device:
        device.until("subscribed")
        server.stop()
        server.start()
        device.until("subscribed")
        server.cloud.boto3("iot-data").publish(topic="site/1", qos=1, payload="hello")
        assert device.until("topic")["payload"] == "hello"


def test_a_hub_device_subscribes_again_after_a_restart(server: RunningServer, hub_client: Program) -> None:
    device = server.cloud.azure_device(at="hub")
    inbox = {"SUBSCRIBE": f"devices/{device.name}/messages/devicebound/#"}
    with hub_client.start("listen", of_hub_device(device) | inbox) as running:
        running.until("subscribed")
        server.stop()
        server.start()
        running.until("subscribed")
        server.run("hub", "c2d", device.name, "open the valve")
        assert running.until("topic")["payload"] == "open the valve"


@pytest.mark.parametrize("protocol", ["MQTT"])
def test_the_device_sdk_for_java_reconnects_after_a_restart(server: RunningServer, protocol: str) -> None:
    device = server.cloud.azure_device(at="hub")
    with Program("java", "HubDevice").start("listen", of_hub_sdk(device, protocol)) as running:
        running.until("subscribed")
        server.stop()
        server.start()
        running.until("connected")
        server.run("hub", "c2d", device.name, "open the valve")
        assert running.until("payload")["payload"] == "open the valve"
