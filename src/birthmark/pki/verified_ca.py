"""A CA certificate on record: an operator's word, or the proof that somebody has its key, lets it vouch for devices."""

from dataclasses import dataclass, replace
from datetime import datetime

from birthmark.errors import ConflictError
from birthmark.pki.certificates import Certificate
from birthmark.pki.possession import check_possession

ANY = "*"
"""The etag that every state has."""
NOTHING = ""
"""The etag that no state has: nothing may be on record."""
_MAX_SHOWN = 64


class AuthorityChangedError(ConflictError):
    """The CA certificate has changed since it was read."""

    code = "pki.ca_etag_mismatch"
    cause = "The CA certificate {name} has changed since the etag {etag} was read."
    fix = (
        "Read it again and repeat the change, or send If-Match: *. List CA certificates: `birthmark dps ca ls`, or "
        "`birthmark hub ca ls`"
    )
    etag: str
    name: str


@dataclass(frozen=True, slots=True)
class CaCertificate:
    """See the module."""

    name: str
    certificate: Certificate
    is_verified: bool
    verification_code: str | None
    etag: str
    created_at: datetime
    updated_at: datetime

    def check_etag(self, etag: str | None) -> None:
        """Raise `AuthorityChangedError` where another certificate, or an earlier state of it, is meant."""
        if etag not in {None, ANY, self.etag}:
            raise AuthorityChangedError(name=self.name, etag=str(etag)[:_MAX_SHOWN])

    def with_code(self, code: str, etag: str, now: datetime) -> "CaCertificate":
        """Return it with a fresh verification code; an earlier one is void."""
        return replace(self, verification_code=code, updated_at=now, etag=etag)

    def trusted(self, etag: str, now: datetime) -> "CaCertificate":
        """Return it taken for verified, by the word of who may."""
        return replace(self, is_verified=True, updated_at=now, etag=etag)

    def proven(self, verification: Certificate, code: str, etag: str, now: datetime) -> "CaCertificate":
        """Return it verified by a certificate that carries the code. Raise `PossessionNotProvenError`."""
        check_possession(verification, self.certificate, code, now)
        return replace(self, is_verified=True, verification_code=None, updated_at=now, etag=etag)
