"""How people sign in, as values: passwords, links to other providers, sessions, and commands that ask to be let in."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple


class Browser(NamedTuple):
    """Where somebody signs in: an address, and what the browser says it is."""

    address: str
    agent: str
    machine_user: int | None = None
    """Whose program it is, where it is known: a user of this machine, who came over loopback."""


@dataclass(frozen=True, slots=True)
class Password:
    """A user's password, by its digest."""

    user: str
    hash: str = field(repr=False)
    let_in_by: str
    """Who let that person in by it: whoever invited, or set it."""
    changed_at: datetime
    addresses: tuple[str, ...] = ()
    """From where somebody signed in by it, the latest first: guesses of others keep nobody out there."""


@dataclass(frozen=True, slots=True)
class Link:
    """A user as another provider knows that one."""

    issuer: str
    subject: str
    user: str
    provider: str
    let_in_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that somebody signed in at."""

    id: str
    user: str
    digest: str = field(repr=False)
    how: str
    """`password`, `invitation`, or `oidc:NAME`."""
    address: str
    agent: str
    let_in_by: str
    created_at: datetime
    used_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Asking:
    """A command of another machine that waits for a person at a browser to let it in."""

    digest: str = field(repr=False)
    code: str
    """What that person types."""
    label: str
    address: str
    ends_at: datetime
    interval_s: int
    asked_at: datetime
    """When it asked last."""
    user: str | None = None
    let_in_by: str | None = None
    is_agreed: bool | None = None
