"""People as values: users, what they may do, their tokens and invitations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from birthmark.auth.permissions import PermissionStatement, Right, statement_of

EVERYWHERE = "*"
SERVER = "server"
"""The place of what is no hub's, provisioning service's or account's."""
_PLACE = re.compile(r"\*|server|aws|(?:hub|dps)/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

MACHINE_USER = "operator"
"""How a session is called of whoever holds the data directory; nobody else may be called so."""
RESERVED = frozenset({MACHINE_USER, "stranger", "server", "unknown", "nobody"})
"""What others are called beside people: in the audit, in who silenced an alert or approved something."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class UserRole(StrEnum):
    """What people are here for."""

    VIEWER = "viewer"
    ENROLLER = "enroller"
    OPERATOR = "operator"
    SECURITY_OFFICER = "security-officer"
    ADMIN = "admin"


RIGHTS_OF: Mapping[UserRole, Sequence[Right]] = {
    UserRole.VIEWER: (Right.READ,),
    UserRole.ENROLLER: (Right.READ, Right.ENROLL),
    UserRole.OPERATOR: (Right.READ, Right.ENROLL, Right.OPERATE, Right.REVOKE),
    UserRole.SECURITY_OFFICER: (Right.READ, Right.REVOKE, Right.TRUST),
    UserRole.ADMIN: tuple(Right),
}


def is_place(text: str) -> bool:
    """Say whether a role can be given there: `*`, `server`, `aws`, `hub/NAME` or `dps/NAME`."""
    return _PLACE.fullmatch(text) is not None


def may_be_called(name: str) -> bool:
    """Say whether a user may be called so."""
    return _NAME.fullmatch(name) is not None


def roles_with(right: Right) -> Sequence[UserRole]:
    """Return the roles that have a right."""
    return [role for role, rights in RIGHTS_OF.items() if right in rights]


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    """A role that a user has at a place."""

    user: str
    role: UserRole
    place: str

    @property
    def statement(self) -> PermissionStatement:
        return statement_of(RIGHTS_OF[self.role], (self.place,))


@dataclass(frozen=True, slots=True)
class User:
    """Somebody."""

    name: str
    created_at: datetime
    made_by: str


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a command shows in somebody's name; where it has a role, or a place, no further than these go."""

    id: str
    user: str
    digest: str = field(repr=False)
    label: str
    role: UserRole | None
    place: str | None
    created_at: datetime
    ends_at: datetime
    made_by: str
    """Who let that person in by it: whoever invited, or made it."""

    @property
    def lifetime(self) -> timedelta:
        """How long it lives in all."""
        return self.ends_at - self.created_at

    @property
    def statement(self) -> PermissionStatement | None:
        if self.role is None and self.place is None:
            return None
        rights = tuple(Right) if self.role is None else RIGHTS_OF[self.role]
        return statement_of(rights, (self.place or EVERYWHERE,))


@dataclass(frozen=True, slots=True)
class Invitation:
    """Makes a user's first token, once."""

    digest: str = field(repr=False)
    user: str
    ends_at: datetime
    made_by: str
