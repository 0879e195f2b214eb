"""What the CA remembers."""

from dataclasses import dataclass
from datetime import datetime

from birthmark.pki.certificates import Certificate
from birthmark.pki.crl import RevocationReason


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in the inventory."""

    certificate: Certificate
    device_id: str
    profile: str
    requested_by: str
    revoked_at: datetime | None = None
    revocation_reason: RevocationReason | None = None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None
