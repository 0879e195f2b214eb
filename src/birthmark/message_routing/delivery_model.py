"""Deliveries: one message for one receiver, and its outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from birthmark.errors import BirthmarkError

PORTS: Mapping[str, int] = {"mqtt": 1883, "mqtts": 8883, "nats": 4222, "tls": 4222}
"""Default ports by scheme: MQTT without and with TLS, NATS without and with TLS."""


@dataclass(frozen=True, slots=True)
class MessageServer:
    """A NATS server or an MQTT broker. `ca` is the trusted CAs as PEM, None for the system's."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to be delivered to one receiver.

    `lane` is the partition, RULE/NUMBER: partitions do not wait for each other. `address` is the destination, as texts
    by kind of action. `origin` is the message that caused the delivery, for error reports. A queued delivery has an
    `id`, the same at each attempt.
    """

    lane: str
    kind: str
    address: Mapping[str, Any]
    body: bytes = field(repr=False)
    origin: Mapping[str, Any] = field(repr=False)
    id: str = ""

    @property
    def size(self) -> int:
        """Return the approximate size in bytes, including the original message."""
        return len(self.body) + len(self.origin.get("payload", ""))


@dataclass(frozen=True, slots=True)
class QueuedDelivery:
    """A queued delivery. `dead_at` is when it became a dead letter, after `tries`; `problem` is the last error."""

    id: str
    lane: str
    kind: str
    address: Mapping[str, Any]
    body: bytes = field(repr=False)
    origin: Mapping[str, Any] = field(repr=False)
    created_at: datetime
    tries: int
    due_at: datetime
    dead_at: datetime | None
    problem: str

    @property
    def letter(self) -> Delivery:
        """Return the delivery to send."""
        return Delivery(self.lane, self.kind, self.address, self.body, self.origin, self.id)


class Sink(Protocol):
    """Delivers messages of one kind."""

    @property
    def is_quick(self) -> bool:
        """Whether delivery waits for no external system, so that it is attempted before queuing."""
        ...

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages in order; return an error or None for each."""
        ...


def is_final(error: BirthmarkError) -> bool:
    """Return whether an error is permanent."""
    return bool(getattr(error, "is_final", False))
