"""HTTP client for outbound calls: one request, its status and the start of its response, with a timeout."""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from birthmark.errors import InvalidRequestError, UnavailableError
from birthmark.outbound.ssrf_guard import PATIENCE_S, Network, check_addresses
from birthmark.supervised_tasks import waiting
from birthmark.text_file_encodings import unseen
from birthmark.untrusted_json_and_text import reason_of, split_url

_MOST = 2048
"""Maximum response bytes read, for troubleshooting of refusals."""
EXAMPLE = "https://hooks.example.com/birthmark"
_OF_HOST = re.compile("[A-Za-z0-9._:%-]+")
_MAX_HOST, _MAX_LABEL = 253, 63


class UrlInvalidError(InvalidRequestError):
    """The URL is not valid for outbound calls."""

    code = "outbound.url_invalid"
    cause = (
        "A valid URL has the form https://HOST/… without a user, password, or fragment; http:// requires "
        "outbound.allow{detail}."
    )
    fix = "Use the receiver's URL: `{command}`"
    command: str = f"birthmark webhook create plant {EXAMPLE}"
    detail: str = ""


class NotAnsweredError(UnavailableError):
    """The receiver returned no valid response."""

    code = "outbound.not_answered"
    cause = "{host} did not accept the message: {reason}."
    fix = "Check the receiver; the server retries automatically."
    for_a_person = "the receiver is an external server"
    host: str
    reason: str


class RefusedByReceiverError(NotAnsweredError):
    """The receiver rejected the message."""

    code = "feed.refused_by_receiver"
    cause = "{host} rejected the message: {reason}."
    fix = (
        "Check the receiver. The server dead-letters messages that the receiver rejects repeatedly. To list the dead "
        "letters: `birthmark webhook dead-letters NAME`"
    )
    for_a_person = "the receiver is an external server"
    is_final: bool = False
    """Whether the failure is permanent: the address does not exist."""


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """Response of a receiver."""

    status: int
    text: str

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110: successful


def check_url(url: str, *, allows_plain: bool) -> str:
    """Return the host of a URL that may be called. Raise `UrlInvalidError`."""
    try:
        parts = split_url(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise UrlInvalidError(detail=unseen(url, 1)) from error
    is_good = parts.scheme == "https" or (allows_plain and parts.scheme == "http")
    if not (is_good and host and parts.username is None and not parts.fragment):
        raise UrlInvalidError(detail=unseen(url, 1))
    if not (url.isprintable() and " " not in url and _may_be_host(host)):
        raise UrlInvalidError(detail=unseen(url, 1))
    return host


def _may_be_host(host: str) -> bool:
    """Return whether a name can be resolved (RFC 1035, 2.3.4).

    Python's resolver raises unexpected errors for other names.
    """
    labels = host.removesuffix(".").split(".")
    is_written_so = _OF_HOST.fullmatch(host) is not None
    return is_written_so and len(host) <= _MAX_HOST and all(0 < len(one) <= _MAX_LABEL for one in labels)


def check_target(url: str, allowed: Sequence[Network]) -> None:
    """Check a URL before it is stored; its name is resolved only at call time.

    Raise `UrlInvalidError`, `AddressRefusedError`.
    """
    host = check_url(url, allows_plain=bool(allowed))
    with contextlib.suppress(ValueError):
        check_addresses(host, [str(ipaddress.ip_address(host))], allowed, is_plain=_is_plain(url))


def _is_plain(url: str) -> bool:
    return urlsplit(url).scheme == "http"


async def callable_addresses(
    host: str, port: int, allowed: Sequence[Network], *, is_plain: bool = False
) -> Sequence[str]:
    """Return the permitted addresses of a name.

    Raise `AddressRefusedError`, `PlainRefusedError`, `OSError`.
    """
    try:
        found = await waiting(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    except UnicodeError as error:
        raise OSError("it is not a host name") from error
    return check_addresses(host, dict.fromkeys(str(one[4][0]) for one in found), allowed, is_plain=is_plain)


class HttpSender:
    """Sends requests to receivers over separate connections, so that receivers do not delay each other."""

    def __init__(self, allowed: Sequence[Network], context: ssl.SSLContext | None = None) -> None:
        """`context` determines TLS trust; default: the system's roots."""
        self._allowed = allowed
        self._context = context

    def check(self, url: str) -> None:
        """Check a URL before it is stored. Raise `UrlInvalidError`, `AddressRefusedError`."""
        check_target(url, self._allowed)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> OutboundResponse:
        """Send a POST and return the response. Raise `NotAnsweredError`, `AddressRefusedError`."""
        status, text = await self._asked("POST", url, headers, body, _MOST)
        return OutboundResponse(status, text[:_MOST].decode("utf-8", "replace"))

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int
    ) -> tuple[int, bytes]:
        """Return status and complete body of a response; a body over `most` bytes is rejected.

        Raise `NotAnsweredError`, `AddressRefusedError`.
        """
        status, text = await self._asked(method, url, headers, body, limit + 1)
        if len(text) > limit:
            host = check_url(url, allows_plain=bool(self._allowed))
            raise NotAnsweredError(host=host, reason=f"it answers with more than {limit} bytes")
        return status, text

    async def _asked(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int
    ) -> tuple[int, bytes]:
        """Return the response status and the body up to the first chunk that exceeds `most` bytes."""
        from birthmark.outbound.http_connection import PROBLEMS, fetch_response  # noqa: PLC0415 - most servers need none

        host = check_url(url, allows_plain=bool(self._allowed))
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._context is None:  # system roots take 17 ms and 2 MB, and may never be needed
                    self._context = await asyncio.to_thread(ssl.create_default_context)
                network = partial(callable_addresses, allowed=self._allowed, is_plain=_is_plain(url))
                return await fetch_response(method, url, headers, body, limit, context=self._context, addresses=network)
        except TimeoutError as error:
            raise NotAnsweredError(host=host, reason=f"no answer in {PATIENCE_S:g} s") from error
        except OSError as error:
            raise NotAnsweredError(host=host, reason=reason_of(error)) from error
        except (*PROBLEMS, ssl.SSLError) as error:
            raise NotAnsweredError(host=host, reason=reason_of(error)) from error
