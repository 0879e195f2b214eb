"""What the services of the account are made of."""

from dataclasses import dataclass

from birthmark.clock import Clock, Entropy
from birthmark.store import Database


@dataclass(slots=True)
class AccountService:
    """Loads, decides and commits; time and chance come from outside."""

    database: Database
    clock: Clock
    entropy: Entropy
