"""Cloud-to-device messages and their feedback as AMQP messages, as Azure's service SDKs send and read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, write_message
from birthmark.amqp.values import Symbol, Timestamp, UByte, ULong
from birthmark.broker.rules.device_queue import QueuedMessage
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import C2dMessage
from birthmark.iothub.wire.amqp_addresses import parse_c2d_target
from birthmark.iothub.wire.amqp_values import body_of, text_of
from birthmark.iothub.wire.times_and_body_validation import registry_time

_ACK = "iothub-ack"
_FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"
_NOTIFICATION_TYPE = "application/vnd.microsoft.iothub.filenotification.json"
_NEVER = "9999-12-31T23:59:59Z"
"""Expiry that no queue accepts, for a time that is out of range."""


class C2dFormError(InvalidRequestError):
    """A message for a device over AMQP is not valid."""

    code = "iothub.c2d_amqp_invalid"
    message = "The message is not valid: {detail}"
    cause = "A message to a device over AMQP is not valid: {detail}."
    fix = "Send the message with a service SDK, or with the CLI. To show the command: `birthmark hub c2d --help`"
    detail: str


def _refused(detail: str) -> C2dFormError:
    return C2dFormError(detail=detail)


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
    given = {name: text_of(name, value, _refused) for name, value in message.application_properties.items()}
    feedback = given.pop(_ACK, "")
    named = {
        "$.cid": properties.correlation_id,
        "$.uid": properties.user_id,
        "$.ct": properties.content_type,
        "$.ce": properties.content_encoding,
    }
    system = {name: text_of(name, value, _refused) for name, value in named.items() if value is not None}
    message_id = "" if properties.message_id is None else text_of("message-id", properties.message_id, _refused)
    return C2dRequest(
        target[0], C2dMessage(body_of(message, _refused), system, given), message_id, feedback, _expiry_of(message, now)
    )


def render_feedback(message_id: str, records: Sequence[Mapping[str, Any]]) -> bytes:
    """Return feedback records as one AMQP message."""
    body = DataBody((msgspec.json.encode(records),))
    return write_message(AmqpMessage(body, MessageProperties(message_id=message_id, content_type=_FEEDBACK_TYPE)))


def render_file_notification(message_id: str, record: Mapping[str, Any]) -> bytes:
    """Return the notification of an uploaded file as an AMQP message."""
    body = DataBody((msgspec.json.encode(record),))
    return write_message(AmqpMessage(body, MessageProperties(message_id=message_id, content_type=_NOTIFICATION_TYPE)))


def render_devicebound(device_id: str, message: QueuedMessage, mail: C2dMessage, lock: UUID) -> bytes:
    """Return a message for its device, with the lock that its outcome ends."""
    system = mail.system
    properties = MessageProperties(
        message_id=message.id,
        to=f"/devices/{device_id}/messages/deviceBound",
        correlation_id=system.get("$.cid"),
        user_id=system["$.uid"].encode() if "$.uid" in system else None,
        content_type=_ascii(system.get("$.ct")),
        content_encoding=_ascii(system.get("$.ce")),
        absolute_expiry_time=message.expires_at // 1000 if "$.exp" in system else None,
    )
    acknowledgment = {_ACK: message.feedback} if message.feedback not in {"", "none"} else {}
    annotations = {
        Symbol("x-opt-lock-token"): str(lock),
        Symbol("x-opt-sequence-number"): ULong(message.seq),
        Symbol("iothub-enqueuedtime"): Timestamp(message.enqueued_at // 1000),
        Symbol("iothub-deliverycount"): UByte(min(message.deliveries, 255)),
    }
    return write_message(
        AmqpMessage(DataBody((mail.payload,)), properties, mail.properties | acknowledgment, annotations)
    )


def _ascii(text: str | None) -> str | None:
    """Return a symbol's text: other characters are replaced, so that the message is delivered."""
    return None if text is None else text.encode("ascii", "replace").decode()


def _expiry_of(message: AmqpMessage, now: datetime) -> str | None:
    at, ttl = message.properties.absolute_expiry_time, message.header.ttl
    try:
        if at is not None:
            return registry_time(datetime.fromtimestamp(at / 1000, UTC))
        return None if ttl is None else registry_time(now + timedelta(milliseconds=ttl))
    except (ValueError, OverflowError, OSError):
        return _NEVER
