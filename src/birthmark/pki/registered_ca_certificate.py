"""Registered CA certificate.

It authenticates devices after an operator's confirmation or proof of possession.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from birthmark.errors import ConflictError
from birthmark.pki.ca_possession_proof import check_possession
from birthmark.pki.certificates import Certificate

ANY = "*"
"""ETag that matches every state."""
NOTHING = ""
"""ETag that matches no state: no certificate may exist."""
_MAX_SHOWN = 64


class AuthorityChangedError(ConflictError):
    """The CA certificate has changed since it was read."""

    code = "pki.ca_etag_mismatch"
    cause = "The CA certificate {name} has changed since the etag {etag} was read."
    fix = (
        "Read the CA certificate again and repeat the change, or send If-Match: *. To list the CA certificates: "
        "`birthmark dps ca ls` or `birthmark hub ca ls`"
    )
    etag: str
    name: str


@dataclass(frozen=True, slots=True)
class CaCertificate:
    """A registered CA certificate with its verification state."""

    name: str
    certificate: Certificate
    is_verified: bool
    verification_code: str | None
    etag: str
    created_at: datetime
    updated_at: datetime

    def check_etag(self, etag: str | None) -> None:
        """Raise `AuthorityChangedError` if `etag` refers to another certificate or an earlier state."""
        if etag not in {None, ANY, self.etag}:
            raise AuthorityChangedError(name=self.name, etag=str(etag)[:_MAX_SHOWN])

    def with_code(self, code: str, etag: str, now: datetime) -> "CaCertificate":
        """Return it with a new verification code, which invalidates an earlier one."""
        return replace(self, verification_code=code, updated_at=now, etag=etag)

    def mark_verified(self, etag: str, now: datetime) -> "CaCertificate":
        """Return it marked as verified by an authorized operator."""
        return replace(self, is_verified=True, updated_at=now, etag=etag)

    def proven(self, verification: Certificate, code: str, etag: str, now: datetime) -> "CaCertificate":
        """Return the CA marked as verified if a certificate contains the code. Raise `PossessionNotProvenError`."""
        check_possession(verification, self.certificate, code, now)
        return replace(self, is_verified=True, verification_code=None, updated_at=now, etag=etag)
