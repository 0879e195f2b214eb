"""A device's will: its own telemetry, told for it (IoT Hub MQTT support, "Using the MQTT protocol directly")."""

from birthmark.errors import InvalidRequestError
from birthmark.iothub import wire
from birthmark.iothub.model import Message


class WillInvalidError(InvalidRequestError):
    """A will that is no telemetry of the device."""

    code = "iothub.will_invalid"
    cause = "The will of device {device_id} was not taken: {detail}."
    fix = (
        "A will has the topic devices/{device_id}/messages/events/ and QoS 0 or 1. Without a will this connects: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    detail: str
    device_id: str


def check_will(device_id: str, topic: str, qos: int) -> None:
    """Raise `WillInvalidError` or `PropertyBagError` for what cannot be told as telemetry."""
    if not isinstance(wire.parse_topic(topic, device_id), wire.TelemetryTopic):
        raise WillInvalidError(device_id=device_id, detail=f"its topic is {topic[:200]}")
    if qos > 1:
        raise WillInvalidError(device_id=device_id, detail="its QoS is 2")
    telemetry_of(device_id, topic, b"", 0, is_retained=False)


def telemetry_of(device_id: str, topic: str, payload: bytes, at: int, *, is_retained: bool) -> Message:
    """Return a checked will as the message that the hub keeps."""
    properties = wire.parse_property_bag(topic.removeprefix(wire.telemetry_topic(device_id)[:-1]).removeprefix("/"))
    properties["iothub-MessageType"] = "Will"
    if is_retained:
        properties["mqtt-retain"] = "true"
    return wire.message_of(device_id, properties, payload, at)
