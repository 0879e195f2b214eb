"""MQTT wills of devices: validation, and conversion to telemetry."""

from birthmark.errors import InvalidRequestError
from birthmark.iothub import wire
from birthmark.iothub.model import TelemetryMessage


class WillInvalidError(InvalidRequestError):
    """The will message is not valid telemetry of the device."""

    code = "iothub.will_invalid"
    cause = "The hub rejected the will message of device {device_id}: {detail}."
    fix = (
        "Use the will topic devices/{device_id}/messages/events/ and QoS 0 or 1. To connect without a will message: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    detail: str
    device_id: str


def check_will(device_id: str, topic: str, qos: int) -> None:
    """Raise `WillInvalidError` or `PropertyBagError` for a will that cannot become telemetry."""
    if not isinstance(wire.parse_topic(topic, device_id), wire.TelemetryTopic):
        raise WillInvalidError(device_id=device_id, detail=f"its topic is {topic[:200]}")
    if qos > 1:
        raise WillInvalidError(device_id=device_id, detail="its QoS is 2")
    telemetry_of(device_id, topic, b"", 0, is_retained=False)


def telemetry_of(device_id: str, topic: str, payload: bytes, timestamp: int, *, is_retained: bool) -> TelemetryMessage:
    """Return a validated will as a telemetry message."""
    properties = wire.parse_property_bag(topic.removeprefix(wire.telemetry_topic(device_id)[:-1]).removeprefix("/"))
    properties["iothub-MessageType"] = "Will"
    if is_retained:
        properties["mqtt-retain"] = "true"
    return wire.message_of(device_id, properties, payload, timestamp)
