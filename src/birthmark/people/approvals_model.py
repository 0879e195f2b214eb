"""What waits for a second person, as values."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from birthmark.auth.rights import Right

MAX_BODY = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that needs two: what it does in words, and what it takes."""

    what: str
    method: str
    path: str
    body: str
    right: Right
    place: str

    def digest(self, user: str) -> str:
        """Return what tells the same request of the same person from all others."""
        parts = f"{user}\0{self.method}\0{self.path}\0{self.body}"
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Approval:
    """What somebody asked for, and what another said to it."""

    digest: str
    id: str
    user: str
    what: str
    method: str
    path: str
    body: str
    right: Right
    place: str
    asked_at: datetime
    ends_at: datetime
    decided_by: str | None = None
    is_approved: bool | None = None
