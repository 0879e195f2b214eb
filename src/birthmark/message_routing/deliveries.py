"""What leaves: one message for one receiver, and how it ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from birthmark.errors import BirthmarkError

PORTS: Mapping[str, int] = {"mqtt": 1883, "mqtts": 8883, "nats": 4222, "tls": 4222}
"""By scheme: MQTT plain and by TLS, NATS plain and by TLS."""


@dataclass(frozen=True, slots=True)
class MessageServer:
    """A NATS server or an MQTT broker. `ca` is the CAs as PEM, None for the system's."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way out.

    `lane` is who sends it, RULE/NUMBER: what is in one lane waits for nobody else. `address` says where it goes, by
    texts as the kind of action has them. `origin` is the message that led to it, for whoever has to say why it failed.
    One that comes out of the queue has an `id` there, the same at each try.
    """

    lane: str
    kind: str
    address: Mapping[str, Any]
    body: bytes = field(repr=False)
    origin: Mapping[str, Any] = field(repr=False)
    id: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes, with the message that led to it."""
        return len(self.body) + len(self.origin.get("payload", ""))


@dataclass(frozen=True, slots=True)
class QueuedDelivery:
    """A letter in the queue. `dead_at` is when it was put aside, after `tries`; `problem` says why it failed last."""

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
        """What is to go out."""
        return Delivery(self.lane, self.kind, self.address, self.body, self.origin, self.id)


class Sink(Protocol):
    """Carries letters of one kind."""

    @property
    def is_quick(self) -> bool:
        """Whether it waits for nobody outside, so that it is tried before anything is queued."""
        ...

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Take letters out, in order; return for each why it failed, or None."""
        ...


def is_final(error: BirthmarkError) -> bool:
    """Say whether another try is in vain."""
    return bool(getattr(error, "is_final", False))
