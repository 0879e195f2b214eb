"""The device's side of the hub."""

from typing import Any

import pytest

from birthmark.iothub import wire
from birthmark.iothub.client import connect_hub
from birthmark.iothub.model import DeviceIdInvalidError


class RecordingMqtt:
    def __init__(self) -> None:
        self.connects: list[dict[str, Any]] = []
        self.published: list[tuple[str, bytes]] = []

    async def connect(self, host: str, port: int, **options: Any) -> bool:
        self.connects.append({"host": host, "port": port, **options})
        return False

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        assert qos == 1
        self.published.append((topic, payload))


async def test_a_device_connects_and_sends_what_the_hub_understands() -> None:
    mqtt = RecordingMqtt()
    hub = await connect_hub(mqtt, "hub.test", "Device-1")  # type: ignore[arg-type]
    (connect,) = mqtt.connects
    assert (connect["host"], connect["port"], connect["client_id"]) == ("hub.test", 8883, "Device-1")
    assert connect["clean_session"] is False
    user = wire.parse_username(connect["username"])
    assert (user.host, user.device_id) == ("hub.test", "Device-1")
    assert wire.is_hub_username(connect["username"])
    await hub.send(b"{}", {"a b": "c/d"}, content_type="application/json", message_id="7")
    ((topic, payload),) = mqtt.published
    assert payload == b"{}"
    bag = wire.parse_property_bag(topic.removeprefix("devices/Device-1/messages/events/"))
    assert bag == {"$.mid": "7", "$.ct": "application/json", "$.ce": "utf-8", "a b": "c/d"}


async def test_a_device_id_that_would_be_another_topic_is_refused() -> None:
    with pytest.raises(DeviceIdInvalidError):
        await connect_hub(RecordingMqtt(), "hub.test", "a/b")  # type: ignore[arg-type]
