"""Models of events and webhooks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

Places: TypeAlias = Mapping[str, int]
"""Position in the event stream: the last row seen per chain."""
NOTICED = "~"
"""Prefix of chains with transient events, which are not in the audit log."""
CONNECTED, DISCONNECTED, LOST, REFUSED = "device.connect", "device.disconnect", "device.lose", "device.refuse"
"""Actions of transient events."""


@dataclass(frozen=True, slots=True)
class OperationEvent:
    """A row of the audit log, or a transient event."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


class EventForm(StrEnum):
    """Form in which a webhook receives events."""

    CLOUDEVENTS = "cloudevents"
    EVENTGRID = "eventgrid"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver and its position. `types` are patterns of event types."""

    name: str
    url: str
    types: tuple[str, ...]
    secret: str = field(repr=False)
    places: str
    created_at: datetime
    former: str = field(default="", repr=False)
    is_paused: bool = False
    tries: int = 0
    next_at: datetime = field(kw_only=True)
    failed_since: datetime | None = None
    problem: str = ""
    owner: str = ""
    owned_until: datetime = field(kw_only=True)
    form: EventForm | None = None
    """None, as of webhooks of earlier versions, is CloudEvents."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Events that a receiver rejected until they became dead letters."""

    id: str
    hook: str
    at: datetime
    count: int
    body: bytes
    problem: str
