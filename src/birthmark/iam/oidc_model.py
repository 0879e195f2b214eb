"""Sign-in by OpenID Connect, as values: providers, what a browser keeps meanwhile, and whom a provider knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from birthmark.errors import ForbiddenError, NotFoundError, UnauthenticatedError, UnavailableError
from birthmark.iam.model import UserRole


class ProviderUnknownError(NotFoundError):
    """Unknown provider."""

    code = "people.provider_unknown"
    message = "Unknown provider {name}"
    cause = "The configuration has no [oidc.{name}]."
    fix = "Sign in at the page /signin, which lists the providers."
    for_a_person = "the user at the browser has to do it"
    name: str


class ProviderAwayError(UnavailableError):
    """The provider is not available or its response is invalid."""

    code = "people.provider_away"
    cause = "{name} ({issuer}) cannot authenticate users: {reason}."
    fix = "Check the connection from the server's machine: `curl -sS {issuer}/.well-known/openid-configuration`"
    for_a_person = "the server belongs to another party"
    issuer: str
    name: str
    reason: str


class ProviderRefusedError(UnauthenticatedError):
    """The provider's response was rejected."""

    code = "people.provider_refused"
    message = "{name} did not authenticate you"
    cause = "The response from {name} was rejected: {detail}."
    fix = (
        "Start again at the page /signin. If the error persists, compare [oidc.{name}] with the "
        "provider's configuration."
    )
    for_a_person = "the user at the browser has to do it"
    detail: str
    name: str


class NobodyOnRecordError(ForbiddenError):
    """The provider's user is not registered here."""

    code = "people.provider_nobody"
    message = "You are not registered here"
    cause = "{name} authenticated you, but no user here is linked to that identity: {detail}."
    fix = (
        "Ask an administrator for an invitation, `birthmark user invite NAME`, and use {name} on the page"
        " that it opens."
    )
    for_a_person = "an administrator has to do it"
    detail: str
    name: str


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
    roles: Mapping[str, Sequence[tuple[UserRole, str]]]
    """By group, `*` for everybody, what somebody may do who is put on record at the first sign-in; empty for nobody."""


class PendingOidcLogin(msgspec.Struct, frozen=True):
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
class OidcIdentity:
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
