"""A principal: who a connection or a command proved to be."""

from dataclasses import dataclass
from enum import Enum

from birthmark.pki.certificates import Thumbprint


class PrincipalKind(Enum):
    """What the proof was."""

    OPERATOR = "operator"
    EST_USER = "est_user"
    DEVICE = "device"
    """A certificate that this installation issued."""
    BOOTSTRAP = "bootstrap"
    """A certificate of a CA that may introduce devices: a maker's IDevID."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who it is, and for which device it may speak: None means any."""

    kind: PrincipalKind
    name: str
    device_id: str | None = None
    thumbprint: Thumbprint | None = None

    def speaks_for(self, device_id: str | None) -> bool:
        """Say whether a certificate of that name may be asked for."""
        return self.device_id is None or self.device_id == device_id

    @property
    def actor(self) -> str:
        """The form used in audit rows."""
        return f"{self.kind.value}:{self.name}"
