"""What the services of the account are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from birthmark.awsiot.service.fleet_index import FleetIndex
from birthmark.clock import Clock, Entropy
from birthmark.store import Database


class Announcer(Protocol):
    """Whoever tells subscribers what became of the registry."""

    async def tell(self, kind: str, topic: str, **told: Any) -> None:
        """Publish an event of this kind on a topic below `$aws/events/`, if the account asked for its kind."""
        ...


@dataclass(slots=True)
class AccountService:
    """Loads, decides and commits; time and chance come from outside."""

    database: Database
    clock: Clock
    entropy: Entropy


@dataclass(slots=True)
class RegistryService(AccountService):
    """What is committed is announced, and found by searches."""

    announcer: Announcer
    index: FleetIndex


Told = Mapping[str, Any]
