"""Authorization: rights of users, their access tokens, and derived credentials.

A statement allows or denies actions on resources, both as patterns (`birthmark.auth.policy_wildcards`). A deny wins,
and the default is deny, as in IAM policies. Credentials narrower than their user, such as an access token, must pass
both checks: an action that either denies is denied.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from birthmark.auth.policy_wildcards import Glob, glob_of


class Right(StrEnum):
    """Actions of the operator interface, by risk."""

    READ = "read"
    """Read everything that is not secret."""
    ENROLL = "enroll"
    """Enroll devices."""
    OPERATE = "operate"
    """Operate and change enrolled devices."""
    REVOKE = "revoke"
    """Revoke devices, certificates, and keys."""
    TRUST = "trust"
    """Manage trusted CAs and the CAs that sign for the server."""
    ADMINISTER = "administer"
    """Create and delete services; read and change secrets; manage users and their rights."""


@dataclass(frozen=True, slots=True)
class PermissionStatement:
    """Statement that allows or denies matching `actions` on matching `resources`."""

    actions: Sequence[Glob]
    resources: Sequence[Glob]
    allows: bool = True

    def applies_to(self, action: str, resource: str) -> bool:
        """Return whether the statement applies."""
        return any(one.matches(action) for one in self.actions) and any(one.matches(resource) for one in self.resources)


def statement_of(actions: Iterable[str], resources: Iterable[str], *, allows: bool = True) -> PermissionStatement:
    """Return the statement of these patterns: `*` matches any run of characters, `?` exactly one."""
    return PermissionStatement(tuple(map(glob_of, actions)), tuple(map(glob_of, resources)), allows)


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights of a caller; each part must allow an action on its own."""

    parts: Sequence[Sequence[PermissionStatement]]

    def allow(self, action: str, resource: str) -> bool:
        """Return whether `action` is allowed on `resource`."""
        return all(_allows(statements, action, resource) for statements in self.parts)

    def within(self, statements: Sequence[PermissionStatement]) -> "Rights":
        """Return the same rights, limited to these statements."""
        return Rights((*self.parts, statements))


EVERYTHING = Rights(((statement_of("*", "*"),),))
NOTHING = Rights(((),))


def _allows(statements: Sequence[PermissionStatement], action: str, resource: str) -> bool:
    about = [one.allows for one in statements if one.applies_to(action, resource)]
    return bool(about) and all(about)
