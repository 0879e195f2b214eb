"""Checks for cookie requests: a host name of this server, a page of this server, and a signed-in user.

Browsers send cookies regardless of the page that caused a request. Cookie requests are therefore accepted only for host
names of this server (DNS rebinding). Changes are accepted only from this origin with a token derived from the session
(CSRF). A request with its own token in `Authorization` needs none of this.
"""

import base64
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from birthmark.auth.principals import Caller
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import ForbiddenError, InvalidRequestError
from birthmark.iam.browser_sessions import BrowserSessions, SessionEndedError, machine_user_of
from birthmark.net.accepted_connection import Connection
from birthmark.net.loopback_peer_uid import user_of

BY_ITSELF = "x-birthmark-by-itself"
"""Header of automatic page requests, which do not extend a session."""
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CSRF = b"birthmark: what a page of this session shows, 1"
_COOKIE = "birthmark"
_MAX_CHARS, _MAX_PATH = 200, 512
_IN_PATHS = "/:@"
_MASKED_CHARS = 86
"""Base64 length of 64 bytes: a token and its mask."""
_USER = "birthmark.machine_user"
"""Request scope key of the operating system user of a connection."""
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


class HostUnknownError(InvalidRequestError):
    """The host name of the request is not one of this server's."""

    code = "console.host_unknown"
    cause = (
        "A browser requested {host}, which is not a name of this server. The server's cookies are valid only for its "
        "own names."
    )
    fix = (
        'Open the console under the server\'s name. If {host} is correct, add names = ["{host}"] to the '
        "configuration and restart the server."
    )
    for_a_person = "the configuration file differs for each installation"
    host: str


class RequestForgedError(ForbiddenError):
    """The request does not come from a page of this session."""

    code = "console.request_forged"
    cause = "A browser sent a change request that does not come from a page of this server: {detail}."
    fix = "Reload the page and repeat the operation."
    for_a_person = "the user must do this in the browser"
    detail: str


def is_own_host(host: str, names: Iterable[str]) -> bool:
    """Return whether a Host, with or without a port, is in `names` or an IP address.

    DNS rebinding cannot use an IP address.
    """
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def local_path(text: str | None) -> str:
    """Return a local path to continue at; `/` if the text leads elsewhere."""
    if not text or len(text) > _MAX_PATH or _PATH.fullmatch(text) is None:
        return "/"
    parts = urlsplit(text)
    return "/" if parts.scheme or parts.netloc else text


@dataclass(frozen=True, slots=True)
class SessionGuard:
    """Cookies of one listener.

    Over TLS they are bound to the host (`__Host-`); on loopback their name has the port.
    """

    sessions: BrowserSessions
    names: frozenset[str]
    port: int | None = None
    """Port of plain HTTP on loopback; None for TLS."""

    @classmethod
    def of(cls, sessions: BrowserSessions, names: Iterable[str], port: int | None = None) -> "SessionGuard":
        """Return the guard of a server with these names."""
        return cls(sessions, frozenset({"localhost", *(name.lower().rstrip(".") for name in names)}), port)

    @property
    def cookie(self) -> str:
        """Name of the session cookie."""
        return f"__Host-{_COOKIE}" if self.port is None else f"{_COOKIE}-{self.port}"

    @property
    def presignin_cookie(self) -> str:
        """Name of the cookie before sign-in."""
        return f"{self.cookie}-before"

    def text(self, request: Request) -> str:
        """Return the value of the session cookie; empty if there is none."""
        return request.cookies.get(self.cookie, "")

    def caller(self, request: Request) -> Caller:
        """Return the caller of a cookie request to the operator API.

        Raise `HostUnknownError`, `RequestForgedError`, `SessionEndedError`.
        """
        self.check_host(request)
        found = self.signed_in(request)
        if request.method not in SAFE:
            self.check_from_here(request, self.text(request), request.headers.get(CSRF_HEADER, ""))
        elif request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            raise RequestForgedError(detail="a page of another site sent it")
        return found

    def signed_in(self, request: Request) -> Caller:
        """Return the user signed in at this browser; the local administrator only on its machine.

        Browsers send a cookie to every port of a host. A loopback session is therefore bound to the system user who
        signed in. Another user cannot use a cookie that they obtain with a server on another port. Raise
        `SessionEndedError`.
        """
        text = self.text(request)
        found = self.sessions.caller(text, address_of(request), is_use=BY_ITSELF not in request.headers)
        bound = machine_user_of(text)
        if bound is not None and bound != machine_user(request):
            raise SessionEndedError
        if found.user is None and self.port is None:
            raise SessionEndedError
        return found

    def mark_connection_authenticated(self, request: Request, caller: Caller) -> None:
        """Account a TLS connection to its user from now on: limits for unauthenticated clients do not apply.

        On the health port this never applies, because unauthenticated clients do not block others there.
        """
        connection: Connection | None = request.scope.get("extensions", {}).get("connection")
        if connection is not None and self.port is None:
            connection.mark_authenticated(f"user:{caller.user}")

    def is_signed_in(self, request: Request) -> bool:
        """Return whether a user is signed in."""
        try:
            self.signed_in(request)
        except SessionEndedError:
            return False
        return True

    def check_host(self, request: Request) -> None:
        """Raise `HostUnknownError` for a name that is not ours."""
        host = request.headers.get("host", "")
        if not is_own_host(host, self.names):
            raise HostUnknownError(host=host.partition(":")[0][:_MAX_CHARS])

    def check_from_here(self, request: Request, secret: str, token: str) -> None:
        """Raise `RequestForgedError` unless the form is from our page and carries the token of this secret."""
        self.check_origin(request)
        if not secret or not hmac.compare_digest(_unmasked(token).encode(), csrf_of(secret).encode()):
            raise RequestForgedError(detail="its token is missing, or belongs to an earlier sign-in")

    def check_origin(self, request: Request) -> None:
        """Raise `RequestForgedError` unless the browser's headers name our origin."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = self.origin(request)
        if site is None and origin is None:
            raise RequestForgedError(detail="it has neither Origin nor Sec-Fetch-Site")
        # A page without a Referer sends `null`; then the browser's own origin header decides.
        allowed = {own} if site is None else {own, "null"}
        if site not in {None, "same-origin"} or (origin is not None and origin.lower() not in allowed):
            raise RequestForgedError(detail="it comes from another origin")

    def mask_token(self, request: Request, entropy: Entropy) -> str:
        """Return the masked token for forms of a compressed page.

        It differs each time, so that the size reveals nothing. (BREACH, https://breachattack.com)
        """
        token = csrf_of(self.text(request))
        raw = _decoded(token)
        mask = entropy.token(len(raw))
        return _encoded(mask + bytes(a ^ b for a, b in zip(mask, raw, strict=True)))

    def origin(self, request: Request) -> str:
        """Return the origin of this server as the browser sees it."""
        return f"{'https' if self.port is None else 'http'}://{request.headers.get('host', '')}".lower()

    def keep(self, response: Response, name: str, text: str, seconds: int | None = None) -> None:
        """Set a cookie for this host, inaccessible to scripts, for the browser session or `seconds`."""
        response.set_cookie(name, text, seconds, path="/", secure=self.port is None, httponly=True, samesite="lax")

    def drop(self, response: Response, name: str) -> None:
        """Delete a cookie."""
        response.delete_cookie(name, path="/", secure=self.port is None, httponly=True, samesite="lax")


def csrf_of(secret: str) -> str:
    """Return the CSRF token for a secret: the session's, or the one used before sign-in."""
    return _encoded(hmac.digest(secret.encode(), _CSRF, "sha256"))


def _unmasked(token: str) -> str:
    """Return a form's token without its mask; an invalid text is returned unchanged."""
    if len(token) != _MASKED_CHARS:
        return token
    try:
        raw = _decoded(token)
        half = len(raw) // 2
        return _encoded(bytes(a ^ b for a, b in zip(raw[:half], raw[half:], strict=True)))
    except ValueError:  # also for characters outside base64: it is shorter than it appears
        return token


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def address_of(request: Request) -> str:
    """Return the client address of a request."""
    return request.client.host if request.client else ""


def machine_user(request: Request) -> int | None:
    """Return the local user of a request over loopback without TLS.

    It is looked up once: a request may outlive its connection, for which the kernel then has no information.
    """
    peer, here = request.client, request.scope.get("server")
    if request.url.scheme != "http" or peer is None or here is None:
        return None
    if _USER not in request.scope:
        request.scope[_USER] = user_of((peer.host, peer.port), (here[0], here[1]))
    user: int | None = request.scope[_USER]
    return user


def path_of(request: Request) -> str:
    """Return the URL-encoded path of a request: names may contain reserved characters."""
    return quote(request.scope["path"], safe=_IN_PATHS)
