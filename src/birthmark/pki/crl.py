"""Certificate revocation lists (RFC 5280 section 5).

Made for whoever asks this CA. Reading another's is for the conformance suites: no door asks for foreign lists, so what
is wrong with one has no code of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.pki.certificates import UNREADABLE, Certificate
from birthmark.pki.checks import ChainError
from birthmark.pki.issue import Issuer, hash_for

MAX_CRL_BYTES = 16 * 1024 * 1024
_UNREADABLE = (*UNREADABLE, x509.DuplicateExtension)


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
    key_id = issuer.certificate.extensions.subject_key_id
    authority = (
        x509.AuthorityKeyIdentifier(key_id, None, None)
        if key_id is not None
        else x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.private_key.public_key())
    )
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(this_update + lifetime)
        .add_extension(authority, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for revocation in revocations:
        builder = builder.add_revoked_certificate(_entry(revocation))
    return builder.sign(issuer.private_key, hash_for(issuer.private_key)).public_bytes(Encoding.DER)


def parse_crl(data: bytes) -> x509.CertificateRevocationList:
    """Return the list in PEM or DER. Raise `ChainError`."""
    if len(data) > MAX_CRL_BYTES:
        raise ChainError(detail=f"its issuer's revocation list has over {MAX_CRL_BYTES} bytes")
    try:
        load = x509.load_pem_x509_crl if b"-----BEGIN" in data else x509.load_der_x509_crl
        found = load(data)
        # cryptography reads lazily; touch what is asked for later, so that it fails here or never.
        _ = (found.issuer.public_bytes(), found.last_update_utc, found.next_update_utc, list(found.extensions))
    except _UNREADABLE as error:
        raise ChainError(detail="its issuer's revocation list cannot be read") from error
    return found


def check_crls(chain: Sequence[Certificate], lists: Sequence[x509.CertificateRevocationList], now: datetime) -> None:
    """Raise `ChainError` for a certificate of `chain` (leaf first) on a list of its issuer.

    A list that breaks the rules is no reason to believe anybody, and is refused too. Lists of others do not count.
    """
    for certificate, issuer in pairwise(chain):
        for one in lists:
            if one.issuer.public_bytes() != issuer.subject_der:
                continue
            try:
                _check_list(one, issuer, now)
                entry = one.get_revoked_certificate_by_serial_number(certificate.serial)
                revoked_at = entry and entry.revocation_date_utc
            except _UNREADABLE as error:  # entries and algorithms are read only when they are asked for
                raise ChainError(detail="something in its issuer's revocation list cannot be read") from error
            if entry is not None:
                raise ChainError(detail=f"it is on its issuer's revocation list since {revoked_at}")


def _check_list(one: x509.CertificateRevocationList, issuer: Certificate, now: datetime) -> None:
    usage = issuer.extensions.key_usage
    numbers = [extension for extension in one.extensions if isinstance(extension.value, x509.CRLNumber)]
    unknown = [extension for extension in one.extensions if extension.critical]
    problems = (
        (usage is not None and "crl_sign" not in usage, "its CA may not sign lists"),
        (len(numbers) != 1, "it has no number"),
        (bool(unknown), "it has a critical extension that is not understood here"),
        (one.last_update_utc > now, "it is of the future"),
        (one.next_update_utc is None or one.next_update_utc < now, "it is out of date"),
        (not one.is_signature_valid(issuer.public_key()), "its CA did not sign it"),  # type: ignore[arg-type]
    )
    for is_broken, detail in problems:
        if is_broken:
            raise ChainError(detail=f"its issuer's revocation list: {detail}")


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial)
        .revocation_date(revocation.revoked_at.replace(microsecond=0))
    )
    if revocation.reason is not RevocationReason.UNSPECIFIED:  # section 5.3.1: then the entry should be absent
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(revocation.reason.value)), critical=False)
    return builder.build()
