"""Cloud-to-device messages: limits, expiry and feedback.

Source: "Understand cloud-to-device messaging" (developer guide). Limits: 64 KiB, at most 50 queued, 1 hour by default
and 2 days at most, a lock of 1 minute, 10 deliveries.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from birthmark.broker.rules.device_queue import DeviceQueueRules, QueuedMessage, QueueOutcome
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import C2dMessage
from birthmark.iothub.wire import devicebound_topic

RULES = DeviceQueueRules(max_waiting=50, lock_s=60, max_deliveries=10)
MAX_BYTES = 64 * 1024
LIFE_S, MAX_LIFE_S = 3600, 48 * 3600
_MICROS = 1_000_000
_MAX_TOPIC_BYTES = 65_535
_ACKS = ("none", "positive", "negative", "full")
_STATUS: Mapping[QueueOutcome, str] = {
    QueueOutcome.COMPLETED: "Success",
    QueueOutcome.REJECTED: "Rejected",
    QueueOutcome.EXPIRED: "Expired",
    QueueOutcome.DELIVERED_TOO_OFTEN: "DeliveryCountExceeded",
    QueueOutcome.PURGED: "Purged",
}
FEEDBACK = "/feedback"
"""Feedback queue of the service: no device id has a slash."""
FEEDBACK_RULES = DeviceQueueRules(max_waiting=10_000, lock_s=60, max_deliveries=100)


class C2dInvalidError(InvalidRequestError):
    """The cloud-to-device message is not valid."""

    code = "iothub.c2d_invalid"
    message = "The message is not valid: {detail}"
    cause = "The message for {device_id} is not valid: {detail}."
    fix = (
        "Limit the message, including its properties, to 64 KiB, and its lifetime to 48 hours. Set iothub-ack to "
        "none, positive, negative or full. To send a valid message: `birthmark hub c2d {device_id} hello`"
    )
    detail: str
    device_id: str


def check_mail(device_id: str, message_id: str, mail: C2dMessage, feedback: str, *, expires_at: int, now: int) -> None:
    """Raise `C2dInvalidError` for an invalid message."""
    names = (*mail.system.items(), *mail.properties.items())
    size = len(mail.payload) + sum(len(name.encode()) + len(value.encode()) for name, value in names)
    problem = None
    if size > MAX_BYTES:
        problem = f"it has {size} bytes, and may have {MAX_BYTES}"
    elif any(name.startswith("$.") for name in mail.properties):
        problem = "the name of an application property begins with $., which is reserved"
    elif feedback not in _ACKS:
        problem = f"iothub-ack is not one of {', '.join(_ACKS)}"
    elif (size := len(devicebound_topic(device_id, message_id, feedback, mail))) > _MAX_TOPIC_BYTES:
        problem = f"its properties result in a topic of {size} bytes, and MQTT allows {_MAX_TOPIC_BYTES}"
    elif not now < expires_at <= now + MAX_LIFE_S * _MICROS:
        problem = "its expiry is in the past, or more than 48 hours away"
    if problem is not None:
        raise C2dInvalidError(device_id=device_id, detail=problem)


def is_told(message: QueuedMessage, outcome: QueueOutcome) -> bool:
    """Return whether the service requested feedback for this outcome of a message."""
    wanted = {"none": (), "positive": (True,), "negative": (False,), "full": (True, False)}[message.feedback or "none"]
    return (outcome is QueueOutcome.COMPLETED) in wanted


def feedback_of(
    device_id: str, generation: str, message: QueuedMessage, outcome: QueueOutcome, timestamp: str
) -> dict[str, Any]:
    """Return the feedback record of a message that ended at `timestamp`.

    As in class FeedbackRecord of Azure's service SDKs: `enqueuedTimeUtc` is the end's time, not the message's.
    """
    status = _STATUS[outcome]
    return {
        "originalMessageId": message.id,
        "description": status,
        "deviceGenerationId": generation,
        "deviceId": device_id,
        "enqueuedTimeUtc": timestamp,
        "statusCode": status,
    }


def parse_expiry(text: str | None, now: int) -> int | None:
    """Return a message's expiry in microseconds, by default an hour from now; None if it is invalid."""
    if not text:
        return now + LIFE_S * _MICROS
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(moment.timestamp() * _MICROS) if moment.tzinfo is not None else None
