"""Sign-in by OpenID Connect, as values: providers, what a browser keeps meanwhile, and whom a provider knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from birthmark.people.model import Role


@dataclass(frozen=True, slots=True)
class Provider:
    """Who says who somebody is, as the configuration has it."""

    name: str
    title: str
    issuer: str
    client_id: str
    secret: str | None = field(repr=False)
    scopes: Sequence[str]
    claim: str | None
    """Which claim is the name of a user on record; None where people are linked by an invitation alone."""
    domains: Sequence[str]
    """Of addresses whose part before the @ is that name, where the claim is `email`."""
    group_claim: str
    roles: Mapping[str, Sequence[tuple[Role, str]]]
    """By group, `*` for everybody, what somebody may do who is put on record at the first sign-in; empty for nobody."""


class Underway(msgspec.Struct, frozen=True):
    """What a browser keeps, for us alone, while it is at a provider."""

    provider: str
    state: str
    nonce: str
    verifier: str
    path: str
    """Where it goes on."""
    code: str = ""
    """Of an invitation."""


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody whom a provider knows, by an ID token that was verified."""

    subject: str
    claims: Mapping[str, Any] = field(repr=False)
    access_token: str = field(repr=False)
    """By which the provider says more of that one."""


class Fetch(Protocol):
    """Calls out."""

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, most: int
    ) -> tuple[int, bytes]:
        """Return status and body. Raise `NotAnsweredError` (UnavailableError) or `PolicyError`.

        An answer of more than `most` bytes is none.
        """
        ...
