"""Telemetry of devices as AMQP messages: one for each delivery, or a batch (facts of the device SDKs)."""

from datetime import UTC, datetime

from birthmark.amqp.errors import AmqpError
from birthmark.amqp.message import BATCH_FORMAT, AmqpMessage, MessageProperties, read_message, split_batch
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import SenderAuthentication, TelemetryMessage
from birthmark.iothub.wire.amqp_values import Refused, body_of, text_of
from birthmark.iothub.wire.d2c_property_bags import MAX_PROPERTIES, MODULE
from birthmark.iothub.wire.times_and_body_validation import registry_time

_OF_PROPERTIES = ("message_id", "correlation_id", "user_id", "content_type", "content_encoding")
_TIMES = {"absolute_expiry_time": "absolute-expiry-time", "creation_time": "iothub-creation-time-utc"}
_SYSTEM = frozenset(
    {"iothub-outputname", "iothub-interface-id", "iothub-creation-time-utc", "iothub-message-schema", "dt-subject"}
)
"""Application properties and annotations that the hub treats as system properties."""
_NONE = MessageProperties()


class TelemetryFormError(InvalidRequestError):
    """A device's message over AMQP is not valid."""

    code = "iothub.telemetry_amqp_invalid"
    message = "The message is not valid: {detail}"
    cause = "A message of device {device_id} over AMQP is not valid: {detail}."
    fix = (
        "Send the message with a device SDK. To send a valid message for comparison: `birthmark device send hello "
        '--hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    detail: str
    device_id: str


def parse_telemetry(
    name: str, payload: bytes, message_format: int, at: int, authentication: SenderAuthentication
) -> list[TelemetryMessage]:
    """Return the messages of a device's or module's delivery; `at` is in microseconds. Raise `TelemetryFormError`."""

    def refused(detail: str) -> TelemetryFormError:
        return TelemetryFormError(detail=detail, device_id=name)

    if message_format not in {0, BATCH_FORMAT}:
        raise refused(f"its message format is {message_format:#x}")
    try:
        parts = split_batch(payload) if message_format else (payload,)
        if not parts:
            raise refused("the batch has no message")
        return [_message_of(name, read_message(part), at, authentication, refused) for part in parts]
    except AmqpError as error:
        raise refused(error.description) from error


def _message_of(
    name: str, message: AmqpMessage, at: int, authentication: SenderAuthentication, refused: Refused
) -> TelemetryMessage:
    device_id, slash, module_id = name.partition("/")
    given, own = message.properties, message.application_properties
    if len(own) > MAX_PROPERTIES:
        raise refused(f"it has more than {MAX_PROPERTIES} application properties")
    system: dict[str, str | None] = {} if given is _NONE else _system_of(given, refused)
    system.update(
        {key: text_of(key, value, refused) for key, value in message.message_annotations.items() if key in _SYSTEM}
    )
    properties: dict[str, str | None] = {}
    for key, value in own.items():
        (system if key in _SYSTEM else properties)[key] = text_of(key, value, refused)
    if slash:
        system[MODULE] = module_id
    return TelemetryMessage(device_id, at, body_of(message, refused), system, properties, *authentication)


def _system_of(given: MessageProperties, refused: Refused) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for field in _OF_PROPERTIES:
        if (value := getattr(given, field)) is not None:
            name = field.replace("_", "-")
            found[name] = text_of(name, value, refused)
    for field, name in _TIMES.items():
        if (millis := getattr(given, field)) is not None:
            found[name] = _time(name, millis, refused)
    return found


def _time(name: str, millis: int, refused: Refused) -> str:
    try:
        return registry_time(datetime.fromtimestamp(millis / 1000, UTC))
    except (ValueError, OverflowError, OSError) as error:
        raise refused(f"{name} is out of range") from error
