"""A device's own queue: each letter is locked while somebody has it, and settled by the lock.

A letter that is taken and not settled is there again when its lock runs out; one that was taken too often, or whose
time is over, is a dead letter.
"""

from enum import StrEnum

import msgspec

MAX_LOCK_S = 300
"""How long a message may be locked at most."""


class InboxRules(msgspec.Struct, frozen=True):
    """What a cloud allows."""

    max_waiting: int = 50
    lock_s: int = 60
    max_deliveries: int = 10


class QueuedMessage(msgspec.Struct, frozen=True):
    """One message with its state; times are in microseconds since 1970. `feedback` is the cloud's own word."""

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
    """What became of a letter."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DELIVERED_TOO_OFTEN = "delivered_too_often"
    PURGED = "purged"


def is_locked(letter: QueuedMessage, now: int) -> bool:
    """Say whether somebody has it."""
    return letter.locked_until is not None and letter.locked_until > now


def end_of(letter: QueuedMessage, rules: InboxRules, now: int) -> QueueOutcome | None:
    """Return why a letter is dead, or None while it is not."""
    if is_locked(letter, now):
        return None
    if letter.expires_at <= now:
        return QueueOutcome.EXPIRED
    return QueueOutcome.DELIVERED_TOO_OFTEN if letter.deliveries >= rules.max_deliveries else None
