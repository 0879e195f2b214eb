"""Rules of a device queue: a received message is locked, and settled by its lock token.

A message that is not settled becomes available again when its lock expires. It becomes a dead letter after too many
deliveries or when it expires.
"""

from enum import StrEnum

import msgspec

MAX_LOCK_S = 300
"""Maximum lock duration in seconds."""


class DeviceQueueRules(msgspec.Struct, frozen=True):
    """Limits of a cloud's device queues."""

    max_waiting: int = 50
    lock_s: int = 60
    max_deliveries: int = 10


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message with its state; times are in microseconds since 1970. `feedback` is cloud-specific."""

    seq: int
    id: str
    body: bytes
    enqueued_at: int
    expires_at: int
    deliveries: int = 0
    lock: str | None = None
    locked_until: int | None = None
    feedback: str = ""


class QueueOutcome(StrEnum):
    """Outcome of a message."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DELIVERED_TOO_OFTEN = "delivered_too_often"
    PURGED = "purged"


def is_locked(message: QueuedMessage, now: int) -> bool:
    """Return whether the message is locked."""
    return message.locked_until is not None and message.locked_until > now


def end_of(message: QueuedMessage, rules: DeviceQueueRules, now: int) -> QueueOutcome | None:
    """Return why a message is dead-lettered, or None while it is not."""
    if is_locked(message, now):
        return None
    if message.expires_at <= now:
        return QueueOutcome.EXPIRED
    return QueueOutcome.DELIVERED_TOO_OFTEN if message.deliveries >= rules.max_deliveries else None
