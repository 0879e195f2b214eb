"""A principal: who a connection or a command proved to be."""

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from birthmark.actor import Actor
from birthmark.auth.permissions import EVERYTHING, NOTHING, Rights
from birthmark.pki.certificates import Thumbprint

_MAX_USER_CHARS = 128


def is_user_name(name: str) -> bool:
    """Say whether an EST user may be called so: HTTP Basic ends a name at a colon (RFC 7617 section 2)."""
    return 0 < len(name) <= _MAX_USER_CHARS and name.isprintable() and ":" not in name


class PrincipalKind(Enum):
    """What the proof was."""

    OPERATOR = "operator"
    EST_USER = "est_user"
    DEVICE = "device"
    """A certificate that this installation issued."""
    BOOTSTRAP = "bootstrap"
    """A certificate of a CA that may introduce devices: a maker's IDevID."""
    AUTHORITY = "authority"
    """A registration authority that an operator put on the list."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who it is, and for which device it may speak: None means any."""

    kind: PrincipalKind
    name: str
    device_id: str | None = None
    thumbprint: Thumbprint | None = None
    names: str = "*"
    """A pattern of the names it may ask for, when it is bound to none."""
    by: Actor | None = None
    """Which person it is, where it is one."""

    def speaks_for(self, device_id: str | None) -> bool:
        """Say whether a certificate of that name may be asked for."""
        if self.device_id is not None:
            return self.device_id == device_id
        return fnmatchcase(device_id or "", self.names)

    @property
    def actor(self) -> str:
        """The form used in audit rows."""
        return self.by or f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks at the operator interface, and what that one may do."""

    actor: Actor
    rights: Rights
    user: str | None = None
    """None is whoever holds the data directory."""
    is_narrowed: bool = False
    """It is a token that goes less far than its user, or ends sooner than a sign-in does: none that is given on."""
    is_bound: bool = False
    """It is a token of a role or a place, whose rights are less than the user's own may be."""
    let_in_by: str = ""
    """Who invited the user, or made the token."""

    @property
    def principal(self) -> Principal:
        """The same for the CA, which gives operators rights of their own."""
        return Principal(PrincipalKind.OPERATOR, self.user or "operator", by=self.actor)


MACHINE = Caller(Actor("operator"), EVERYTHING)
"""Whoever holds the data directory."""
STRANGER = Caller(Actor("stranger"), NOTHING)
