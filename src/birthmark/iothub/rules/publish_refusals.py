"""Permitted device topics (IoT Hub MQTT support, "Sending device-to-cloud messages")."""

from birthmark.errors import InvalidRequestError

MAX_MESSAGE_BYTES = 256 * 1024


class TopicNotServedError(InvalidRequestError):
    """The topic is not supported."""

    code = "iothub.topic_not_served"
    cause = "Device {device_id} used the topic {topic}, which this hub does not support."
    fix = (
        "Publish telemetry to devices/{device_id}/messages/events/, and use $iothub/ topics as the SDKs do. To send "
        'telemetry: `birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    device_id: str
    topic: str


class QosNotServedError(InvalidRequestError):
    """QoS 2 is not supported."""

    code = "iothub.qos_not_served"
    cause = "Device {device_id} published with QoS 2; IoT Hub supports QoS 0 and 1."
    fix = (
        'Publish with QoS 1, as this command does: `birthmark device send hello --hub "$PROVISIONING_HOST" '
        "--device-id {device_id}`"
    )
    device_id: str


class BatchInvalidError(InvalidRequestError):
    """The batch of telemetry messages is not valid."""

    code = "iothub.batch_invalid"
    message = "The batch is not valid: {detail}"
    cause = "The batch of messages from device {device_id} is not valid: {detail}."
    fix = (
        "Send a JSON array of up to 500 objects, each with a base64 body and optional properties. To send a single "
        'message instead: `birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    detail: str
    device_id: str


class MessageTooLargeError(InvalidRequestError):
    """The message is too large."""

    code = "iothub.message_too_large"
    cause = "Device {device_id} sent a message of at least {size} bytes; the limit is 262144 bytes."
    fix = (
        "Send smaller messages, or upload a file. To send a message within the limit: `birthmark device send hello "
        '--hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    device_id: str
    size: int


class PathNotServedError(InvalidRequestError):
    """The operation of the hub's REST interface is not supported."""

    code = "iothub.operation_not_served"
    message = "{method} {path} is not supported"
    cause = "{method} {path} is an operation of IoT Hub that this hub does not support."
    fix = (
        "Over HTTPS, use the identity registry (/devices, /devices/ID, /devices/ID/modules, /statistics), device and "
        "module twins and direct methods (/twins/ID), messages (/devices/ID/messages) and their feedback, file uploads "
        "(/devices/ID/files), or import and export (/jobs/create). Devices and modules can use every operation over "
        "MQTT and MQTT over WebSocket. List the registry: `birthmark hub device ls`"
    )
    method: str
    path: str
