"""Preflight checks: certificates with which no device can register or connect."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.pki.certificates import Certificate, CertificateInvalidError
from birthmark.pki.single_certificate_checks import ChainError, check_ca, check_client


def doubts_of(certificate: Certificate, now: datetime, *, needs_common_name: bool) -> list[str]:
    """Return the reasons why a device with this certificate will be refused; empty if none is known."""
    found = []
    if needs_common_name and not certificate.subject_cn:
        found.append("it has no common name, which would be the registration id")
    found += _doubts_of_dates(certificate, now)
    return found + _doubts_of_check(lambda: check_client(certificate, is_pinned=True))


@dataclass(frozen=True, slots=True)
class Judge:
    """Evaluates the devices of a list for reasons against enrolling them."""

    now: datetime
    needs_common_name: bool

    def __call__(self, entry: ManifestEntry) -> tuple[str, ...]:
        """Return the doubts about an entry; none for one without a certificate."""
        try:
            certificate = entry.certificate
        except CertificateInvalidError as error:  # validly signed, but unreadable content
            return (f"its certificate cannot be read: {error}",)
        if certificate is None:
            return ()
        return tuple(doubts_of(certificate, self.now, needs_common_name=self.needs_common_name))


def doubts_of_ca(certificate: Certificate, now: datetime) -> list[str]:
    """Return the reasons why all devices below this CA will be refused; empty if none is known."""
    return _doubts_of_dates(certificate, now) + _doubts_of_check(lambda: check_ca(certificate))


def _doubts_of_dates(certificate: Certificate, now: datetime) -> list[str]:
    if certificate.not_after <= now:
        return [f"it expired at {certificate.not_after:%Y-%m-%d %H:%M} UTC"]
    if certificate.not_before > now:
        return [f"it is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC"]
    return []


def _doubts_of_check(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except ChainError as error:
        return [error.explain_cause().rstrip(".")]
    return []
