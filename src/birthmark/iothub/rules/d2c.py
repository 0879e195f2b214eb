"""What a device may publish and subscribe to (IoT Hub MQTT support, "Sending device-to-cloud messages")."""

from birthmark.errors import InvalidRequestError
from birthmark.iothub import wire
from birthmark.iothub.model import TelemetryMessage


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


def telemetry_of(device_id: str, topic: str, payload: bytes, at: int, *, is_retained: bool) -> TelemetryMessage:
    """Return a checked will as the message that the hub keeps."""
    properties = wire.parse_property_bag(topic.removeprefix(wire.telemetry_topic(device_id)[:-1]).removeprefix("/"))
    properties["iothub-MessageType"] = "Will"
    if is_retained:
        properties["mqtt-retain"] = "true"
    return wire.message_of(device_id, properties, payload, at)


MAX_MESSAGE_BYTES = 256 * 1024


class TopicNotServedError(InvalidRequestError):
    """The topic is not served."""

    code = "iothub.topic_not_served"
    cause = "Device {device_id} used the topic {topic}, which this hub does not serve."
    fix = (
        "A device publishes to devices/{device_id}/messages/events/, and to $iothub/ as the SDKs do; as this does: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    device_id: str
    topic: str


class PathNotServedError(InvalidRequestError):
    """An operation of the hub's REST interface that is not here."""

    code = "iothub.operation_not_served"
    message = "{method} {path} is not served"
    cause = "{method} {path} is an operation of IoT Hub that this hub does not serve."
    fix = (
        "Served are the identity registry (/devices, /devices/ID, /devices/ID/modules, /statistics), twins and direct "
        "methods (/twins/ID, also of modules), messages of devices and to them (/devices/ID/messages) and their "
        "feedback, over HTTPS; all that a device or a module does over MQTT and MQTT over WebSocket. What the registry "
        "holds: `birthmark hub device ls`"
    )
    method: str
    path: str


class QosNotServedError(InvalidRequestError):
    """QoS 2 is not served."""

    code = "iothub.qos_not_served"
    cause = "Device {device_id} published with QoS 2; IoT Hub knows QoS 0 and 1."
    fix = (
        "Publish with QoS 1, as this does: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    device_id: str


class BatchInvalidError(InvalidRequestError):
    """A batch of telemetry that cannot be read."""

    code = "iothub.batch_invalid"
    message = "The batch is not valid: {detail}"
    cause = "The batch of messages that device {device_id} sent was not taken: {detail}."
    fix = (
        "A batch is a JSON array of up to 500 objects, each with a body in base64 and maybe properties. By itself a "
        'message is sent so: `birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    detail: str
    device_id: str


class MessageTooLargeError(InvalidRequestError):
    """The message is too large."""

    code = "iothub.message_too_large"
    cause = "Device {device_id} sent {size} bytes; a message has at most 262144."
    fix = (
        "Send less at once, or upload a file. This is taken: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    device_id: str
    size: int
