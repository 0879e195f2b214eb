"""Rights: what somebody may do, and where. The one place that decides it for people, their tokens and what follows.

A statement allows or denies actions on resources, both as patterns (`birthmark.auth.wildcards`). A deny wins, and what
nothing allows is denied, as in IAM's policies. Who acts by something narrower than himself, a token, is judged by both:
what one of them does not allow is denied.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from birthmark.auth.wildcards import Glob, glob_of


class Right(StrEnum):
    """The actions of the operator interface, by what they put at stake."""

    READ = "read"
    """Look at whatever is no secret."""
    ENROLL = "enroll"
    """Put devices on record, and let them in."""
    OPERATE = "operate"
    """Reach and change devices that are on record."""
    REVOKE = "revoke"
    """Take devices, certificates and keys back."""
    TRUST = "trust"
    """Decide which CAs are trusted, and by which the server signs."""
    ADMINISTER = "administer"
    """Make and remove services; read and change secrets; people and what they may do."""


@dataclass(frozen=True, slots=True)
class PermissionStatement:
    """Allows, or denies, what fits one of `actions` on what fits one of `resources`."""

    actions: Sequence[Glob]
    resources: Sequence[Glob]
    allows: bool = True

    def names(self, action: str, resource: str) -> bool:
        """Say whether it is about this."""
        return any(one.matches(action) for one in self.actions) and any(one.matches(resource) for one in self.resources)


def statement_of(actions: Iterable[str], resources: Iterable[str], *, allows: bool = True) -> PermissionStatement:
    """Return the statement of these patterns: `*` is any run of characters, `?` one."""
    return PermissionStatement(tuple(map(glob_of, actions)), tuple(map(glob_of, resources)), allows)


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do: each part on its own must allow it."""

    parts: Sequence[Sequence[PermissionStatement]]

    def allow(self, action: str, resource: str) -> bool:
        """Say whether `action` may be done on `resource`."""
        return all(_allows(statements, action, resource) for statements in self.parts)

    def within(self, statements: Sequence[PermissionStatement]) -> "Rights":
        """Return the same rights, no further than these statements go."""
        return Rights((*self.parts, statements))


EVERYTHING = Rights(((statement_of("*", "*"),),))
NOTHING = Rights(((),))


def _allows(statements: Sequence[PermissionStatement], action: str, resource: str) -> bool:
    about = [one.allows for one in statements if one.names(action, resource)]
    return bool(about) and all(about)
