"""Certificate revocation lists (RFC 5280 section 5), made for whoever asks this CA; nothing here reads another's."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.pki.issue import Issuer, authority_key_id, hash_for


class RevocationReason(Enum):
    """Why; the names of RFC 5280 section 5.3.1."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One certificate that is no longer to be believed."""

    serial: int
    revoked_at: datetime
    reason: RevocationReason = RevocationReason.UNSPECIFIED


def build_crl(
    issuer: Issuer, revocations: Iterable[Revocation], *, number: int, now: datetime, lifetime: timedelta
) -> bytes:
    """Return the DER list. `number` must grow with each list of this issuer."""
    this_update = now.replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(this_update + lifetime)
        .add_extension(authority_key_id(issuer), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for revocation in revocations:
        builder = builder.add_revoked_certificate(_entry(revocation))
    return builder.sign(issuer.private_key, hash_for(issuer.private_key)).public_bytes(Encoding.DER)


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial)
        .revocation_date(revocation.revoked_at.replace(microsecond=0))
    )
    if revocation.reason is not RevocationReason.UNSPECIFIED:  # section 5.3.1: then the entry should be absent
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(revocation.reason.value)), critical=False)
    return builder.build()
