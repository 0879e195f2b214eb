"""A CA elsewhere that signs what was decided here: the port, and what is asked of its answer.

Everything else stays as it is: who may ask, who holds a name and a key, the inventory. What an upstream issues is
checked before it is believed: it is for the key and the name that were asked for, and one of its CAs has signed it.
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
    """Issues in the place of our own CAs."""

    async def issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        """Return a certificate for the request, whose other names were found good here. Raise why there is none.

        `subject` is what our own CA would have it say.
        """
        ...

    def certificates(self) -> tuple[Certificate, ...]:
        """Return its CAs, closest first and the root last. Raise `UpstreamUnknownError` before they were learnt."""
        ...


@dataclass(slots=True)
class PendingSignatures:
    """Who waits for a CA elsewhere: each subject once, and `most` in all, so that a silent one is waited for by few."""

    most: int = 24
    _subjects: set[x509.Name] = field(default_factory=set)

    @contextmanager
    def turn(self, subject: x509.Name) -> Iterator[bool]:
        """Say whether there is room to ask for that subject now."""
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
    fix = "Check that it responds: `curl -ksSf -o /dev/null {url}/cacerts`. This server retries automatically."
    reason: str
    url: str


class UpstreamAnswerError(UnavailableError):
    """The external CA returned an invalid certificate."""

    code = "ca.upstream_answer"
    cause = "The CA at {url} received a request for '{asked}' and returned a certificate that {detail}."
    fix = (
        "Configure that CA to keep a request's key and common name, and to sign with the CAs that it publishes. On a "
        "Birthmark server's machine, list its certificates: `birthmark pki ls {asked}`."
    )
    asked: str
    detail: str
    url: str


def check_answer(
    issued: Certificate, request: CertificateRequest, asked: str, above: Sequence[Certificate]
) -> str | None:
    """Return what is wrong with a certificate; None when nothing is."""
    if issued.spki_der != request.spki_der:
        return "is for another key"
    if issued.subject_cn != asked:
        return f"is for '{issued.subject_cn}'"
    if not any(is_signed_by(issued, one) for one in above):
        return "none of its CAs has signed"
    return None


def issuer_of(issued: Certificate, above: Sequence[Certificate]) -> Certificate:
    """Return the one that has signed."""
    return next(one for one in above if is_signed_by(issued, one))
