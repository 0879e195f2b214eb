"""Principals: authenticated identities of connections and commands."""

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from birthmark.actor import Actor
from birthmark.auth.permission_statements import EVERYTHING, NOTHING, Rights
from birthmark.pki.certificates import Thumbprint

_MAX_USER_CHARS = 128


def is_user_name(name: str) -> bool:
    """Return whether this is a valid EST user name; HTTP Basic ends a name at a colon (RFC 7617 section 2)."""
    return 0 < len(name) <= _MAX_USER_CHARS and name.isprintable() and ":" not in name


class PrincipalKind(Enum):
    """Kind of credential."""

    OPERATOR = "operator"
    EST_USER = "est_user"
    DEVICE = "device"
    """Certificate that this installation issued."""
    BOOTSTRAP = "bootstrap"
    """A certificate of a CA that may introduce devices, such as a manufacturer's IDevID."""
    AUTHORITY = "authority"
    """A registration authority on the operator's list."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated identity and the device it may act for; None means any."""

    kind: PrincipalKind
    name: str
    device_id: str | None = None
    thumbprint: Thumbprint | None = None
    names: str = "*"
    """Pattern of the names it may request, unless it is bound to one."""
    by: Actor | None = None
    """The user, if the principal is one."""

    def may_act_for(self, device_id: str | None) -> bool:
        """Return whether it may request a certificate of that name."""
        if self.device_id is not None:
            return self.device_id == device_id
        return fnmatchcase(device_id or "", self.names)

    @property
    def actor(self) -> str:
        """The principal's name in audit rows."""
        return self.by or f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller of the operator interface, with its rights."""

    actor: Actor
    rights: Rights
    user: str | None = None
    """None for the local administrator."""
    is_narrowed: bool = False
    """Whether its token has fewer rights than its user or expires before a sign-in, so it cannot create tokens."""
    is_bound: bool = False
    """Whether its token is bound to a role or scope with fewer rights than the user may have."""
    let_in_by: str = ""
    """Who invited the user or created the token."""

    @property
    def principal(self) -> Principal:
        """The caller as a principal of the CA, which has separate rights for operators."""
        return Principal(PrincipalKind.OPERATOR, self.user or "operator", by=self.actor)


MACHINE = Caller(Actor("operator"), EVERYTHING)
"""The local administrator."""
UNAUTHENTICATED = Caller(Actor("stranger"), NOTHING)
