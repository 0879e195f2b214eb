"""What a device may leave as its will, and what the hub makes of it."""

import pytest

from birthmark.iothub import wire
from birthmark.iothub.model import DeviceId, TelemetryMessage
from birthmark.iothub.rules.will_messages import WillInvalidError, check_will, telemetry_of

D = DeviceId("d")


@pytest.mark.parametrize("bag", ["", "a=b&%24.ct=text%2Fplain"])
def test_a_will_is_the_devices_own_telemetry(bag: str) -> None:
    check_will(D, f"devices/d/messages/events/{bag}", 1)


@pytest.mark.parametrize(
    ("topic", "qos"),
    [
        ("devices/other/messages/events/", 1),
        ("$iothub/twin/GET/?$rid=1", 1),
        ("$iothub/methods/res/200/?$rid=1", 1),
        ("devices/d/messages/devicebound/", 1),
        ("elsewhere", 0),
        ("devices/d/messages/events/", 2),
    ],
)
def test_another_topic_or_qos_is_refused(topic: str, qos: int) -> None:
    with pytest.raises(WillInvalidError):
        check_will(D, topic, qos)


def test_a_will_with_too_many_properties_is_refused() -> None:
    bag = "&".join(f"p{n}=1" for n in range(65))
    with pytest.raises(wire.PropertyBagError):
        check_will(D, f"devices/d/messages/events/{bag}", 1)


def test_it_is_told_with_its_properties_and_as_what_it_is() -> None:
    topic = "devices/d/messages/events/%24.ct=text%2Fplain&site=a&iothub-MessageType=spoofed"
    told = telemetry_of("d", topic, b"gone", 7, is_retained=True)
    properties: dict[str, str | None] = {"site": "a", "iothub-MessageType": "Will", "mqtt-retain": "true"}
    assert told == TelemetryMessage("d", 7, b"gone", {"content-type": "text/plain"}, properties)


def test_the_topic_may_lack_its_last_slash() -> None:
    assert telemetry_of("d", "devices/d/messages/events", b"", 0, is_retained=False).system == {}
