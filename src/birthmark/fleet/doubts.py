"""What speaks against a record before it is made: certificates by which no device can ever register or connect."""

from datetime import datetime

from birthmark.pki.certificates import Certificate
from birthmark.pki.checks import ChainError, check_client


def doubts_of(certificate: Certificate, now: datetime, *, needs_common_name: bool) -> list[str]:
    """Return why a device with this certificate will be refused, in words; an empty list when nothing is known."""
    found = []
    if needs_common_name and not certificate.subject_cn:
        found.append("it has no common name, which would be the registration id")
    if certificate.not_after <= now:
        found.append(f"it expired at {certificate.not_after:%Y-%m-%d %H:%M} UTC")
    if certificate.not_before > now:
        found.append(f"it is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC")
    try:
        check_client(certificate, is_pinned=True)
    except ChainError as error:
        found.append(error.explain_cause().rstrip("."))
    return found
