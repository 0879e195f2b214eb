"""What a device may publish and subscribe to (IoT Hub MQTT support, "Sending device-to-cloud messages")."""

from birthmark.errors import InvalidRequestError

MAX_MESSAGE_BYTES = 256 * 1024


class TopicNotServedError(InvalidRequestError):
    """A topic this hub does not know, or of another device."""

    code = "iothub.topic_not_served"
    cause = "Device {device_id} used the topic {topic}, which this hub does not serve."
    fix = "A device publishes telemetry to devices/{device_id}/messages/events/ only; check the id and the topic."


class QosNotServedError(InvalidRequestError):
    """QoS 2."""

    code = "iothub.qos_not_served"
    cause = "Device {device_id} published with QoS 2; IoT Hub knows QoS 0 and 1."
    fix = "Publish with QoS 1."


class MessageTooLargeError(InvalidRequestError):
    """More than 256 KiB."""

    code = "iothub.message_too_large"
    cause = "Device {device_id} sent {size} bytes; a message has at most 262144."
    fix = "Send less at once, or upload a file."
