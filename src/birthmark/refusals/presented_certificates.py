"""Certificates presented in the latest refusals, so that an operator can trust one without its file.

In memory only and limited: the newest of each address, so that no client displaces the others.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from birthmark.errors import NotFoundError
from birthmark.pki.certificates import Certificate, Thumbprint

MOST = 256
MOST_OF_ONE = 16
MAX_BYTES = 8192


class CertificateNotKeptError(NotFoundError):
    """The presented certificate is not stored."""

    code = "refusals.certificate_not_kept"
    cause = (
        f"The certificate {{thumbprint}} was not presented in the last {MOST} refusals (at most "
        f"{MOST_OF_ONE} for each address), or the server was restarted since."
    )
    fix = "Let the device retry. Then `birthmark why` lists the device's certificate."
    thumbprint: str


Find: TypeAlias = Callable[[Thumbprint], Awaitable[Certificate]]
"""Returns a certificate that was presented to any worker. Raises `CertificateNotKeptError`."""


@dataclass(slots=True)
class PresentedCertificates:
    """Presented certificates by thumbprint, the latest last."""

    _kept: OrderedDict[Thumbprint, tuple[str, Certificate]] = field(default_factory=OrderedDict)
    _of: Counter[str] = field(default_factory=Counter)

    def add(self, share: str, certificate: Certificate) -> None:
        """Store a certificate presented from an address share."""
        if len(certificate.der) > MAX_BYTES:
            return
        self._forget(certificate.thumbprint)
        if self._of[share] >= MOST_OF_ONE:
            self._forget_oldest_of(share)
        elif len(self._kept) >= MOST:
            self._forget_oldest_of(max(self._of, key=self._of.__getitem__))
        self._kept[certificate.thumbprint] = (share, certificate)
        self._of[share] += 1

    def get(self, thumbprint: Thumbprint) -> Certificate:
        """Return a presented certificate. Raise `CertificateNotKeptError`."""
        found = self._kept.get(thumbprint)
        if found is None:
            raise CertificateNotKeptError(thumbprint=thumbprint.hex())
        return found[1]

    def _forget_oldest_of(self, share: str) -> None:
        self._forget(next(one for one, (whose, _) in self._kept.items() if whose == share))

    def _forget(self, thumbprint: Thumbprint) -> None:
        if (found := self._kept.pop(thumbprint, None)) is not None:
            self._of[found[0]] -= 1
            if not self._of[found[0]]:
                del self._of[found[0]]
