"""User credentials for the cloud APIs: each access token is a shared access policy of its user.

The vendors' own SDKs and tools can therefore act as a user, with a connection string derived from the token alone. The
policy name contains token ID and service name, and the key is the token's SHA-256. The user's rights apply to all
requests signed with it.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from birthmark.auth.principals import Caller

BEGIN = "bmt_"
_BETWEEN = "@"
_ID_CHARS, _NAME_CHARS = 12, 64


@dataclass(frozen=True, slots=True)
class UserCredential:
    """The user of a policy, and its key."""

    caller: Caller
    key: bytes = field(repr=False)


class UserDirectory(Protocol):
    """Looks up users by the IDs of their access tokens."""

    def find_user(self, token_id: str, address: str) -> UserCredential | None:
        """Return the owner of this token; None if it is unknown, revoked, or expired."""
        ...


class _NoUsers:
    def find_user(self, _token_id: str, _address: str) -> None:
        return None


NO_USERS: UserDirectory = _NoUsers()


def is_user_policy(policy: str | None) -> bool:
    """Return whether the policy name has the form of a user's."""
    return policy is not None and policy.startswith(BEGIN)


def token_and_service_of(policy: str) -> tuple[str, str]:
    """Return the access token's ID and the service name in a policy name."""
    token_id, _, name = policy.removeprefix(BEGIN).partition(_BETWEEN)
    return token_id, name


def printable(policy: str | None) -> str:
    """Return a printable policy name; a complete token in its place is truncated."""
    if not is_user_policy(policy):
        return str(policy)
    token_id, name = token_and_service_of(str(policy))
    cut = BEGIN + token_id.partition("_")[0][:_ID_CHARS]
    return f"{cut}{_BETWEEN}{name[:_NAME_CHARS]}" if name and "_" not in token_id else cut


def policy_of(token_id: str, name: str) -> str:
    """Return the policy name of a token at a provisioning service or hub of that name."""
    return f"{BEGIN}{token_id}{_BETWEEN}{name}"


def access_key_of(token_id: str) -> str:
    """Return the access key ID of a token at the account; its secret is the key in hexadecimal."""
    return f"{BEGIN}{token_id}"


def key_of(token: str) -> bytes:
    """Return the policy key that is derived from an access token."""
    return hashlib.sha256(token.encode()).digest()
