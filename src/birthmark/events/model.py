"""Events and webhooks as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

Places: TypeAlias = Mapping[str, int]
"""For each chain the last row that was seen."""
NOTICED = "~"
"""How the chains begin of what was noticed and is in no audit trail."""
CONNECTED, DISCONNECTED, LOST, REFUSED = "device.connect", "device.disconnect", "device.lose", "device.refuse"
"""What is noticed."""


@dataclass(frozen=True, slots=True)
class OperationEvent:
    """A row of the audit trail, or something that was noticed."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver, and how far it is. `types` are patterns of event types."""

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


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Events that a receiver did not take for so long that they were put aside."""

    id: str
    hook: str
    at: datetime
    count: int
    body: bytes
    problem: str
