"""Registration authority mode: this server in front of another EST server, chainable per ISA-95 layer.

This server authenticates the device by its own rules. It forwards the request unchanged, with its own certificate or
password. The device gets the other server's response: wait (202), later (503), no (403).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509

from birthmark.ca.external_ca_port import PendingSignatures, UpstreamAnswerError, UpstreamUnknownError, check_answer
from birthmark.errors import BirthmarkError, ForbiddenError, ThrottledError, UnavailableError
from birthmark.est.client import EstClient, EstServerBusyError, Https
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import CertificateRequest

log = logging.getLogger(__name__)
_ACCEPTED = 202
_RETRY_S = 30


class UpstreamPendingError(ThrottledError):
    """The request is waiting at the upstream server."""

    code = "est.upstream_pending"
    cause = "{url} requires an operator to approve the request of '{device_id}'."
    fix = "Approve the request on the upstream server. To list the waiting requests there: `birthmark pki request ls`."
    device_id: str
    url: str


class UpstreamBusyError(ThrottledError):
    """The upstream server is busy."""

    code = "est.upstream_busy"
    cause = "{url}, which signs for this server, is busy. Retry in {retry_after_s} s."
    fix = "Wait {retry_after_s} s; the device retries automatically."
    url: str


class UpstreamRefusedError(ForbiddenError):
    """The upstream server rejected the request."""

    code = "est.upstream_refused"
    cause = "{url}, which signs for this server, rejected the request of '{device_id}': {reason}"
    fix = (
        "On the upstream server, show the cause: `birthmark why {device_id}`. Check that this server is in the list "
        "of registration authorities there: `birthmark pki ra ls`."
    )
    device_id: str
    reason: str
    url: str


@dataclass(slots=True)
class EstUpstream:
    """An EST server that signs for this one. `links` opens a connection as this server, with its files reread."""

    url: str
    links: Callable[[], Https] = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    """Path segment per profile; profiles without an entry use none."""
    keep: Callable[[tuple[Certificate, ...]], Awaitable[None]] | None = None
    """Called with its CA certificates if they have changed."""
    known: tuple[Certificate, ...] = ()
    _asking: PendingSignatures = field(default_factory=PendingSignatures, init=False, repr=False)
    _is_kept: bool = field(default=True, init=False)
    """Whether its CA certificates are stored; after a failure, the next refresh stores them again."""

    def certificates(self) -> tuple[Certificate, ...]:
        """Return the upstream server's CAs, closest first and root last. Raise `UpstreamUnknownError`."""
        if not self.known:
            raise UpstreamUnknownError(url=self.url, reason="it has not answered since this server started")
        return self.known

    async def refresh(self) -> None:
        """Fetch its CA certificates. Raise the connection's errors."""
        bag = await self._client(self.url).cacerts()
        found = tuple(sorted(bag, key=lambda one: (one.is_self_signed, one.subject_der)))
        if found != self.known or not self._is_kept:
            self.known, self._is_kept = found, False
            if self.keep is not None:
                await self.keep(found)
            self._is_kept = True

    async def issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        """Return a certificate for the forwarded request; the other server decides on subject and lifetime."""
        del lifetime
        with self._asking.turn(subject) as is_next:
            if not is_next:
                raise UpstreamBusyError(url=self.url, retry_after_s=_RETRY_S)
            return await self._issued(request, profile)

    async def _issued(self, request: CertificateRequest, profile: CertificateProfile) -> Certificate:
        label = self.labels.get(profile.name)
        url, asked = self.url if label is None else f"{self.url.rstrip('/')}/{label}", request.subject_cn or ""
        try:
            got = await self._client(url).enroll(request.der)
        except EstServerBusyError as error:
            wait = error.retry_after_s or _RETRY_S
            if error.status == _ACCEPTED:
                raise UpstreamPendingError(url=url, device_id=asked, retry_after_s=wait) from error
            raise UpstreamBusyError(url=url, retry_after_s=wait) from error
        except UnavailableError:
            raise
        except BirthmarkError as error:
            raise UpstreamRefusedError(url=url, device_id=asked, reason=error.explain_cause()) from error
        above = [one for one in got.bag if one != got.leaf]
        if not profile.is_ca and (wrong := check_answer(got.leaf, request, asked, above)) is not None:
            raise UpstreamAnswerError(url=url, asked=asked, detail=wrong)
        return got.leaf

    def _client(self, url: str) -> EstClient:
        return EstClient(url, self.links(), self.username, self.password)
