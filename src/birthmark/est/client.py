"""EST client (RFC 7030): fetch the CAs, enroll and renew a certificate.

The transport is a port: the holder of the device's key connects, with or without a client certificate. Responses are
verified: the certificate must contain the requested key.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from birthmark.device_transports.web_page_detection import check_answer
from birthmark.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError, UnavailableError
from birthmark.est import wire
from birthmark.pki.certificates import Certificate
from birthmark.pki.certs_only_cms import CmsInvalidError
from birthmark.pki.csr import parse_csr
from birthmark.pki.path_validation import walk_up
from birthmark.untrusted_json_and_text import printable, whole_number

_OK, _ACCEPTED, _UNAUTHORIZED, _FORBIDDEN, _TOO_MANY, _SERVER_ERROR = 200, 202, 401, 403, 429, 500
_RETRY_S = 30
_REFERENCE = re.compile(r"Reference: ([0-9A-Za-z][0-9A-Za-z-]{0,99})")
_NO_CONTENT, _NOT_FOUND = 204, 404
_MAX_SHOWN = 300
_MAX_RETRY_AFTER_S = 7 * 24 * 3600


class EstServerAnswerError(InvalidRequestError):
    """The EST server returned no certificate."""

    code = "est.server_answer"
    cause = "{url} returned {status}: {text}"
    fix = "Use an EST server's URL, such as `{wanted}`. On a Birthmark server's machine, show the cause: `{command}`"
    command: str
    status: int
    text: str
    url: str
    wanted: str


class EstServerUnauthenticatedError(UnauthenticatedError):
    """The EST server rejected the credentials."""

    code = "est.server_unauthenticated"
    cause = "{url} rejected the credentials: {text}"
    fix = (
        "Check the user name and password, or the bootstrap certificate. On a Birthmark server's machine, show the "
        "cause: `{command}`"
    )
    command: str
    text: str
    url: str


class EstServerForbiddenError(ForbiddenError):
    """The EST server rejected the request."""

    code = "est.server_forbidden"
    cause = "{url} rejected the request: {text}"
    fix = "On a Birthmark server's machine, show the cause: `{command}`"
    command: str
    text: str
    url: str


class EstServerBusyError(UnavailableError):
    """The EST server is busy."""

    code = "est.server_busy"
    cause = "{url} returned {status}: {text}"
    fix = "Wait {wait_s} s and retry; `birthmark agent run` retries automatically."
    status: int
    text: str
    url: str
    retry_after_s: int | None
    wait_s: int


class EstWrongCertificateError(InvalidRequestError):
    """The certificate is for another key."""

    code = "est.wrong_certificate"
    cause = "{url} returned a certificate for another key."
    fix = "Check the EST server's log for this request; the server is at fault."
    for_a_person = "the fault is on another server"
    url: str


class EstHttpResponse(Protocol):
    """An HTTP response; header names in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...


class Https(Protocol):
    """HTTPS request to a server with a verified certificate. Raise `UnavailableError` if it cannot be reached."""

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b""
    ) -> EstHttpResponse: ...


@dataclass(frozen=True, slots=True)
class EnrollmentResponse:
    """A new certificate with its CAs: `intermediates` closest first, `anchors` the self-signed ones."""

    leaf: Certificate
    intermediates: tuple[Certificate, ...]
    anchors: tuple[Certificate, ...]
    window: tuple[datetime, datetime] | None = None
    """Renewal window that the server suggests, if any (`Renewal-Window`)."""
    bag: tuple[Certificate, ...] = field(default=(), repr=False)
    """All certificates in the response, in no particular order."""

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """Chain that the device presents: leaf and intermediates, without the root."""
        return (self.leaf, *self.intermediates)


@dataclass(frozen=True, slots=True)
class EstClient:
    """Client of the EST server at `url`, which includes /.well-known/est and a label, if any."""

    url: str
    https: Https = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    async def cacerts(self) -> tuple[Certificate, ...]:
        """Return the CA certificates, in no particular order."""
        answer = await self._request("GET", "cacerts")
        return self._certificates(answer)

    async def csr_attributes(self) -> tuple[wire.CsrAttribute, ...]:
        """Return the attributes that the server requires in requests; none if it has no requirements."""
        answer = await self._request("GET", "csrattrs", also=(_NO_CONTENT, _NOT_FOUND))
        return wire.parse_csr_attributes(answer.body) if answer.status == _OK else ()

    async def enroll(self, csr: bytes) -> EnrollmentResponse:
        """Get a certificate for the DER request `csr`. Raise this module's errors, or the transport's."""
        return await self._certificate("simpleenroll", csr)

    async def reenroll(self, csr: bytes) -> EnrollmentResponse:
        """Renew the certificate that the transport presents as client certificate."""
        return await self._certificate("simplereenroll", csr)

    async def _certificate(self, operation: str, csr: bytes) -> EnrollmentResponse:
        wanted = parse_csr(csr).spki_der
        # First, because it can be repeated: the next request uses up a one-time password.
        above = await self.cacerts()
        answer = await self._request("POST", operation, wire.render_csr(csr))
        received = self._certificates(answer)
        leaf = next((one for one in received if one.spki_der == wanted), None)
        if leaf is None:
            raise EstWrongCertificateError(url=self._url(operation))
        bag = (*received, *above)
        return replace(_sorted(leaf, bag), bag=bag, window=wire.parse_window(answer.headers.get("renewal-window")))

    def _certificates(self, answer: EstHttpResponse) -> tuple[Certificate, ...]:
        wanted = f"https://{urlsplit(self.url).hostname}:8085{wire.BASE_PATH}"
        try:
            return wire.parse_certs_only(answer.body)
        except wire.EstBodyInvalidError as error:
            raise CmsInvalidError(detail=error.facts.get("detail", "it is too large"), wanted=wanted) from error
        except CmsInvalidError as error:
            error.add_facts(wanted=wanted)
            raise

    async def _request(
        self, method: str, operation: str, body: bytes = b"", *, also: Sequence[int] = ()
    ) -> EstHttpResponse:
        headers = {"Accept": "*/*"}
        if body:
            headers |= {"Content-Type": wire.PKCS10, "Content-Transfer-Encoding": "base64"}
        if self.username is not None:
            headers["Authorization"] = wire.render_basic(self.username, self.password or "")
        url = self._url(operation)
        answer = check_answer(await self.https.request(method, url, headers=headers, body=body), url, "an EST server")
        if answer.status == _OK or answer.status in also:
            return answer
        text = printable(" ".join(answer.body[:_MAX_SHOWN].decode("utf-8", "replace").split()))
        named = answer.headers.get(wire.REFERENCE.lower(), "")
        reference = _REFERENCE.search(f"Reference: {named}" if named else text)
        why = "birthmark why" if reference is None else f"birthmark why {reference[1]}"
        facts: dict[str, Any] = {
            "url": url,
            "status": answer.status,
            "text": text or printable(answer.headers.get(wire.REASON.lower(), "no reason")[:_MAX_SHOWN]),
            "command": why,
            "wanted": _wanted(url),
        }
        if answer.status == _UNAUTHORIZED:
            raise EstServerUnauthenticatedError(**facts)
        if answer.status == _FORBIDDEN:
            raise EstServerForbiddenError(**facts)
        if answer.status in {_ACCEPTED, _TOO_MANY} or answer.status >= _SERVER_ERROR:
            later = _retry_after_s(answer.headers)
            raise EstServerBusyError(retry_after_s=later, wait_s=later or _RETRY_S, **facts)
        raise EstServerAnswerError(**facts)

    def _url(self, operation: str) -> str:
        return f"{self.url.rstrip('/')}/{operation}"


def _sorted(leaf: Certificate, bag: Sequence[Certificate]) -> EnrollmentResponse:
    """Sort the CA certificates, because a SET has no order, and separate the roots, which devices do not present."""
    above = walk_up(leaf, bag)
    anchors = {one.thumbprint: one for one in bag if one.is_ca and one.is_self_signed}
    return EnrollmentResponse(
        leaf, tuple(one for one in above if one.thumbprint not in anchors), tuple(anchors.values())
    )


def _wanted(url: str) -> str:
    """Return the URL of an EST server's operations on the host of `url`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{wire.BASE_PATH}"


def _retry_after_s(headers: Mapping[str, str]) -> int | None:
    """Return the seconds to wait.

    A date is relative to the response's Date header, because the device's clock may be wrong.
    """
    header = headers.get("retry-after", "")
    if (seconds := whole_number(header)) is None:
        try:
            apart = parsedate_to_datetime(header) - parsedate_to_datetime(headers.get("date", ""))
        except (ValueError, TypeError, OverflowError):  # also a year of fifty digits
            return None
        seconds = max(0, int(apart.total_seconds()))
    return seconds if seconds <= _MAX_RETRY_AFTER_S else None
