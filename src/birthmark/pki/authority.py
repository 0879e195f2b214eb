"""A CA certificate on record: an operator's word, or the proof that somebody has its key, lets it vouch for devices."""

from dataclasses import dataclass, replace
from datetime import datetime

from birthmark.pki.certificates import Certificate
from birthmark.pki.possession import check_possession


@dataclass(frozen=True, slots=True)
class Authority:
    """See the module."""

    name: str
    certificate: Certificate
    is_verified: bool
    verification_code: str | None
    etag: str
    created_at: datetime
    updated_at: datetime

    def with_code(self, code: str, etag: str, now: datetime) -> "Authority":
        """Return it with a fresh verification code; an earlier one is void."""
        return replace(self, verification_code=code, updated_at=now, etag=etag)

    def trusted(self, etag: str, now: datetime) -> "Authority":
        """Return it taken for verified, by the word of who may."""
        return replace(self, is_verified=True, updated_at=now, etag=etag)

    def proven(self, verification: Certificate, code: str, etag: str, now: datetime) -> "Authority":
        """Return it verified by a certificate that carries the code. Raise `PossessionNotProvenError`."""
        check_possession(verification, self.certificate, code, now)
        return replace(self, is_verified=True, verification_code=None, updated_at=now, etag=etag)
