"""The device's side of the hub."""

import pytest

from birthmark.iothub import wire
from birthmark.iothub.client import connect_hub
from birthmark.iothub.model import DeviceIdInvalidError
from birthmark.mqtt.packets import Connect


class RecordingMqtt:
    def __init__(self) -> None:
        self.connects: list[tuple[str, int, Connect]] = []
        self.published: list[tuple[str, bytes]] = []

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        self.connects.append((host, port, connect))
        return False

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        assert qos == 1
        self.published.append((topic, payload))


async def test_a_device_connects_and_sends_what_the_hub_understands() -> None:
    mqtt = RecordingMqtt()
    hub = await connect_hub(mqtt, "hub.test", "Device-1")  # type: ignore[arg-type]  # a stand-in for the link
    ((host, port, connect),) = mqtt.connects
    assert (host, port, connect.client_id) == ("hub.test", 8883, "Device-1")
    assert connect.clean_start is False
    assert connect.username is not None
    user = wire.parse_username(connect.username)
    assert (user.host, user.device_id) == ("hub.test", "Device-1")
    assert wire.is_hub_username(connect.username)
    await hub.send(b"{}", {"a b": "c/d"}, content_type="application/json", message_id="7")
    ((topic, payload),) = mqtt.published
    assert payload == b"{}"
    bag = wire.parse_property_bag(topic.removeprefix("devices/Device-1/messages/events/"))
    assert bag == {"$.mid": "7", "$.ct": "application/json", "$.ce": "utf-8", "a b": "c/d"}


async def test_a_device_id_that_would_be_another_topic_is_refused() -> None:
    with pytest.raises(DeviceIdInvalidError):
        await connect_hub(RecordingMqtt(), "hub.test", "a/b/c")  # type: ignore[arg-type]  # a stand-in for the link
