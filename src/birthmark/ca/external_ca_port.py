"""External CA that signs certificates approved here: the port, and the checks of its response.

Authorization, ownership of names and keys, and the inventory are unchanged. An issued certificate is verified before it
is accepted: it has the requested key and name, and is signed by one of the external CA's certificates.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from cryptography import x509

from birthmark.errors import UnavailableError
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.certificates import Certificate, is_signed_by
from birthmark.pki.csr import CertificateRequest


class ExternalCa(Protocol):
    """Issues certificates instead of the local CAs."""

    async def issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        """Return a certificate for an approved request. Raise an error if none is issued.

        `subject` is the subject that the local CA would issue.
        """
        ...

    def certificates(self) -> tuple[Certificate, ...]:
        """Return its CA certificates, issuer first, root last.

        Raise `UpstreamUnknownError` before they are known.
        """
        ...


@dataclass(slots=True)
class PendingSignatures:
    """Pending requests to an external CA: one per subject, and `most` in total.

    The limits keep an outage from blocking many callers.
    """

    most: int = 24
    _subjects: set[x509.Name] = field(default_factory=set)

    @contextmanager
    def turn(self, subject: x509.Name) -> Iterator[bool]:
        """Yield whether a request for this subject may be sent now."""
        if subject in self._subjects or len(self._subjects) >= self.most:
            yield False
            return
        self._subjects.add(subject)
        try:
            yield True
        finally:
            self._subjects.discard(subject)


class UpstreamUnknownError(UnavailableError):
    """The external CA has not responded yet."""

    code = "ca.upstream_unknown"
    cause = "The CA at {url}, which signs for this server, has not returned its certificates yet: {reason}."
    fix = "Check whether the CA responds: `curl -ksSf -o /dev/null {url}/cacerts`. This server retries automatically."
    reason: str
    url: str


class UpstreamAnswerError(UnavailableError):
    """The external CA returned an invalid certificate."""

    code = "ca.upstream_answer"
    cause = "The CA at {url} received a request for '{asked}' and returned a certificate that {detail}."
    fix = (
        "Configure that CA to keep the key and common name of each request, and to sign with the CAs that it "
        "publishes. If that CA is a Birthmark server, list the certificates on its machine: `birthmark pki ls "
        "{asked}`."
    )
    asked: str
    detail: str
    url: str


def check_answer(
    issued: Certificate, request: CertificateRequest, asked: str, above: Sequence[Certificate]
) -> str | None:
    """Return the problem with an issued certificate, or None."""
    if issued.spki_der != request.spki_der:
        return "is for another key"
    if issued.subject_cn != asked:
        return f"is for '{issued.subject_cn}'"
    if not any(is_signed_by(issued, one) for one in above):
        return "none of its CAs signed"
    return None


def issuer_of(issued: Certificate, above: Sequence[Certificate]) -> Certificate:
    """Return the certificate of the issuing CA."""
    return next(one for one in above if is_signed_by(issued, one))
