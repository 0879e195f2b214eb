"""OpenID Connect records: providers, pending sign-ins and identities."""

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
    cause = "The configuration has no table [oidc.{name}]."
    fix = "Sign in on the page /signin, which lists the providers."
    for_a_person = "the user at the browser has to sign in"
    name: str


class ProviderAwayError(UnavailableError):
    """The provider is not available or its response is invalid."""

    code = "people.provider_away"
    cause = "{name} ({issuer}) cannot authenticate users: {reason}."
    fix = "Check the connection from the server's machine: `curl -sS {issuer}/.well-known/openid-configuration`"
    for_a_person = "the provider's server belongs to another party"
    issuer: str
    name: str
    reason: str


class ProviderRefusedError(UnauthenticatedError):
    """The provider's response was rejected."""

    code = "people.provider_refused"
    message = "{name} did not authenticate you"
    cause = "The server rejected the response from {name}: {detail}."
    fix = (
        "Open /signin and sign in again. If the error persists, compare [oidc.{name}] in the server's configuration "
        "with the provider's configuration."
    )
    for_a_person = "the user must sign in again in the browser"
    detail: str
    name: str


class UserNotRegisteredError(ForbiddenError):
    """The provider's user is not registered here."""

    code = "people.provider_nobody"
    message = "You are not registered on this server"
    cause = "{name} authenticated you, but no user on this server is linked to that identity: {detail}."
    fix = (
        "Ask an administrator for an invitation (`birthmark user invite NAME`). On the page that the invitation "
        "opens, sign in with {name}."
    )
    for_a_person = "an administrator must create the invitation"
    detail: str
    name: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A configured OpenID provider."""

    name: str
    title: str
    issuer: str
    client_id: str
    secret: str | None = field(repr=False)
    scopes: Sequence[str]
    claim: str | None
    """Claim with the user name; None where users are linked by invitation only."""
    domains: Sequence[str]
    """Email domains whose local part is the user name, where the claim is `email`."""
    group_claim: str
    roles: Mapping[str, Sequence[tuple[UserRole, str]]]
    """Roles of a user created at the first sign-in, by group, with `*` for all; empty: no users are created."""


class PendingOidcLogin(msgspec.Struct, frozen=True):
    """Sign-in state that the browser keeps for this server while it is at a provider."""

    provider: str
    state: str
    nonce: str
    verifier: str
    path: str
    """Path to continue at after sign-in."""
    code: str = ""
    """Code of an invitation."""


@dataclass(frozen=True, slots=True)
class OidcIdentity:
    """A provider's user, from a verified ID token."""

    subject: str
    claims: Mapping[str, Any] = field(repr=False)
    access_token: str = field(repr=False)
    """Access token for the userinfo endpoint."""


class Fetch(Protocol):
    """HTTP client for outgoing requests."""

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int
    ) -> tuple[int, bytes]:
        """Return status and body. Raise `NotAnsweredError` (UnavailableError) or `PolicyError`.

        A response of more than `limit` bytes is rejected.
        """
        ...
