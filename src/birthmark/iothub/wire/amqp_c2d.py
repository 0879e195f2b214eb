"""Cloud-to-device messages and their feedback as AMQP messages, as Azure's service SDKs send and read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, ValueBody, write_message
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import C2dMessage
from birthmark.iothub.wire.amqp_addresses import parse_c2d_target
from birthmark.iothub.wire.times_and_body_validation import registry_time

_ACK = "iothub-ack"
_FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"
_NEVER = "9999-12-31T23:59:59Z"
"""Expiry that no queue accepts, for a time that is out of range."""


class C2dFormError(InvalidRequestError):
    """A message for a device over AMQP is not valid."""

    code = "iothub.c2d_amqp_invalid"
    message = "The message is not valid: {detail}"
    cause = "A message to a device over AMQP is not valid: {detail}."
    fix = "Send the message with a service SDK, or with the CLI. To show the command: `birthmark hub c2d --help`"
    detail: str


@dataclass(frozen=True, slots=True)
class C2dRequest:
    """A message to a device, as the service sent it."""

    device_id: str
    message: C2dMessage
    message_id: str
    feedback: str
    expiry: str | None


def parse_c2d(message: AmqpMessage, now: datetime) -> C2dRequest:
    """Return the request in a message; a time to live counts from `now`. Raise `C2dFormError`."""
    properties = message.properties
    target = parse_c2d_target(properties.to)
    if target is None or target[1] is not None:
        raise C2dFormError(detail="the property to is not /devices/DEVICE/messages/devicebound")
    given = {name: _text_of(name, value) for name, value in message.application_properties.items()}
    feedback = given.pop(_ACK, "")
    named = {
        "$.cid": properties.correlation_id,
        "$.uid": properties.user_id,
        "$.ct": properties.content_type,
        "$.ce": properties.content_encoding,
    }
    system = {name: _text_of(name, value) for name, value in named.items() if value is not None}
    message_id = "" if properties.message_id is None else _text_of("message-id", properties.message_id)
    return C2dRequest(
        target[0], C2dMessage(_body_of(message), system, given), message_id, feedback, _expiry_of(message, now)
    )


def render_feedback(message_id: str, records: Sequence[Mapping[str, Any]]) -> bytes:
    """Return feedback records as one AMQP message."""
    body = DataBody((msgspec.json.encode(records),))
    return write_message(AmqpMessage(body, MessageProperties(message_id=message_id, content_type=_FEEDBACK_TYPE)))


def _body_of(message: AmqpMessage) -> bytes:
    match message.body:
        case DataBody() as data:
            return data.payload
        case ValueBody(value=str(text)):
            return text.encode()
        case ValueBody(value=bytes(payload)):
            return payload
        case None:
            return b""
        case _:
            raise C2dFormError(detail="the body is neither data nor a text or binary value")


def _text_of(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise C2dFormError(detail=f"{name[:50]!r} is not UTF-8") from error
    if isinstance(value, list | dict):
        raise C2dFormError(detail=f"{name[:50]!r} has a list or a map as its value")
    return "" if value is None else str(value)


def _expiry_of(message: AmqpMessage, now: datetime) -> str | None:
    at, ttl = message.properties.absolute_expiry_time, message.header.ttl
    try:
        if at is not None:
            return registry_time(datetime.fromtimestamp(at / 1000, UTC))
        return None if ttl is None else registry_time(now + timedelta(milliseconds=ttl))
    except (ValueError, OverflowError, OSError):
        return _NEVER
