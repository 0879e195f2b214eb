"""Base classes of the account's services."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from birthmark.awsiot.service.fleet_index import FleetIndex
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.store import Database


class Announcer(Protocol):
    """Publishes registry events to subscribers."""

    async def tell(self, kind: str, topic: str, **told: Any) -> None:
        """Publish an event of this type below `$aws/events/` if the account enabled its type."""
        ...


@dataclass(slots=True)
class AccountService:
    """Base service: load, decide, commit; time and randomness are injected."""

    database: Database
    clock: Clock
    entropy: Entropy


@dataclass(slots=True)
class RegistryService(AccountService):
    """Base service whose commits are announced and indexed."""

    announcer: Announcer
    index: FleetIndex


Told = Mapping[str, Any]
