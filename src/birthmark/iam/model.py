"""IAM records: users, roles, access tokens and invitations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from birthmark.auth.permission_statements import PermissionStatement, Right, statement_of

EVERYWHERE = "*"
SERVER = "server"
"""Scope of server-wide resources that belong to no hub, provisioning service or account."""
_PLACE = re.compile(r"\*|server|aws|(?:hub|dps)/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

MACHINE_USER = "operator"
"""User name of the local administrator's sessions; reserved."""
RESERVED = frozenset({MACHINE_USER, "stranger", "server", "unknown", "nobody"})
"""Reserved names that the audit trail, silences and approvals use for actors that are not users."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class UserRole(StrEnum):
    """Role of a user."""

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
    """Return whether a text is a scope: `*`, `server`, `aws`, `hub/NAME` or `dps/NAME`."""
    return _PLACE.fullmatch(text) is not None


def is_valid_user_name(name: str) -> bool:
    """Return whether a user name is permitted."""
    return _NAME.fullmatch(name) is not None


def roles_with(right: Right) -> Sequence[UserRole]:
    """Return the roles that include a right."""
    return [role for role, rights in RIGHTS_OF.items() if right in rights]


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    """A role of a user at a scope."""

    user: str
    role: UserRole
    place: str

    @property
    def statement(self) -> PermissionStatement:
        return statement_of(RIGHTS_OF[self.role], (self.place,))


@dataclass(frozen=True, slots=True)
class User:
    """A user."""

    name: str
    created_at: datetime
    made_by: str


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token of a user; its role or scope, if set, limits the user's rights."""

    id: str
    user: str
    digest: str = field(repr=False)
    label: str
    role: UserRole | None
    place: str | None
    created_at: datetime
    ends_at: datetime
    made_by: str
    """Actor who admitted the user with it: the inviter, or its creator."""

    @property
    def lifetime(self) -> timedelta:
        """Total lifetime."""
        return self.ends_at - self.created_at

    @property
    def statement(self) -> PermissionStatement | None:
        if self.role is None and self.place is None:
            return None
        rights = tuple(Right) if self.role is None else RIGHTS_OF[self.role]
        return statement_of(rights, (self.place or EVERYWHERE,))


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that creates a user's first token, once."""

    digest: str = field(repr=False)
    user: str
    ends_at: datetime
    made_by: str
