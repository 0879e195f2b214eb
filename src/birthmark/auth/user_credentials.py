"""People at the clouds' service interfaces: each token is a shared access policy of its person's own.

So the vendors' own SDKs and tools work in somebody's name, by a connection string that the token alone makes: the
policy is called after the token and the service, and its key is the token's SHA-256. What is signed by it is judged by
what that person may do, as everything else is.
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
    """Whoever a policy is of, and what signs by it."""

    caller: Caller
    key: bytes = field(repr=False)


class UserDirectory(Protocol):
    """Knows people by the ids of their tokens."""

    def person(self, token_id: str, address: str) -> UserCredential | None:
        """Return whose token this is; None for one that is unknown, taken back or over."""
        ...


class _NoUsers:
    def person(self, _token_id: str, _address: str) -> None:
        return None


NOBODY: UserDirectory = _NoUsers()


def is_of_person(policy: str | None) -> bool:
    """Say whether a policy is called as those of people are."""
    return policy is not None and policy.startswith(BEGIN)


def parts_of(policy: str) -> tuple[str, str]:
    """Return the token's id and the name of the service."""
    token_id, _, name = policy.removeprefix(BEGIN).partition(_BETWEEN)
    return token_id, name


def printable(policy: str | None) -> str:
    """Return what a policy is called, for people: a whole token that was given in its place is cut."""
    if not is_of_person(policy):
        return str(policy)
    token_id, name = parts_of(str(policy))
    cut = BEGIN + token_id.partition("_")[0][:_ID_CHARS]
    return f"{cut}{_BETWEEN}{name[:_NAME_CHARS]}" if name and "_" not in token_id else cut


def policy_of(token_id: str, name: str) -> str:
    """Return what a token's policy is called at a provisioning service or hub of that name."""
    return f"{BEGIN}{token_id}{_BETWEEN}{name}"


def access_key_of(token_id: str) -> str:
    """Return what a token's access key is called at the account; its secret is the key in hexadecimal."""
    return f"{BEGIN}{token_id}"


def key_of(token: str) -> bytes:
    """Return the key of a token's policies."""
    return hashlib.sha256(token.encode()).digest()
