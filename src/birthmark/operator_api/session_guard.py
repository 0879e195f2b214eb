"""What a request by cookie has to show: that it was sent to a name of ours, from a page of ours, by who is signed in.

The cookie is a browser's, which sends it whoever asked for it. So its requests are taken under a name of this server
alone (a page of another's may be led here by its own name: DNS rebinding), and what changes something only from this
origin and with a token that follows from the session (CSRF). A request with a token of its own in `Authorization` needs
none of this.
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
from birthmark.clock import Entropy
from birthmark.errors import ForbiddenError, InvalidRequestError
from birthmark.iam.sessions import BrowserSessions, SessionEndedError, machine_user_of
from birthmark.net.connection import Connection
from birthmark.net.peer_uid import user_of

BY_ITSELF = "x-birthmark-by-itself"
"""What a page sends along where nobody pressed anything: that keeps no session alive."""
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CSRF = b"birthmark: what a page of this session shows, 1"
_COOKIE = "birthmark"
_MAX_CHARS, _MAX_PATH = 200, 512
_IN_PATHS = "/:@"
_MASKED_CHARS = 86
_USER = "birthmark.machine_user"
"""Of 64 bytes: a token and its mask."""
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


class HostUnknownError(InvalidRequestError):
    """The host name of the request is not one of this server's."""

    code = "console.host_unknown"
    cause = (
        "A browser requested {host}, which is not a name of this server; its cookies are valid for its own names only."
    )
    fix = (
        "Open the console under the server's name. If {host} is correct, add it to the configuration and "
        'restart the server: names = ["{host}"]'
    )
    for_a_person = "the configuration file differs for each installation"
    host: str


class RequestForgedError(ForbiddenError):
    """The request does not come from a page of this session."""

    code = "console.request_forged"
    cause = "A browser sent a change request that does not come from a page of this server: {detail}."
    fix = "Reload the page and repeat the operation."
    for_a_person = "the user at the browser has to do it"
    detail: str


def is_ours(host: str, names: Iterable[str]) -> bool:
    """Say whether a Host, with a port or without, is one of `names`, or an address, which no other's name leads to."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def local_path(text: str | None) -> str:
    """Return where on this server to go on; where the text leads elsewhere, its first page."""
    if not text or len(text) > _MAX_PATH or _PATH.fullmatch(text) is None:
        return "/"
    parts = urlsplit(text)
    return "/" if parts.scheme or parts.netloc else text


@dataclass(frozen=True, slots=True)
class SessionGuard:
    """Cookies of one listener. By TLS they are the host's alone (`__Host-`); on loopback they carry its port."""

    sessions: BrowserSessions
    names: frozenset[str]
    port: int | None = None
    """Of plain HTTP on loopback; None is TLS."""

    @classmethod
    def of(cls, sessions: BrowserSessions, names: Iterable[str], port: int | None = None) -> "SessionGuard":
        """Return the gate of a server of these names."""
        return cls(sessions, frozenset({"localhost", *(name.lower().rstrip(".") for name in names)}), port)

    @property
    def cookie(self) -> str:
        """What the session's cookie is called."""
        return f"__Host-{_COOKIE}" if self.port is None else f"{_COOKIE}-{self.port}"

    @property
    def before(self) -> str:
        """What the cookie of a browser is called at which nobody is signed in yet."""
        return f"{self.cookie}-before"

    def text(self, request: Request) -> str:
        """Return what the session's cookie holds; nothing where there is none."""
        return request.cookies.get(self.cookie, "")

    def caller(self, request: Request) -> Caller:
        """Return who asks by a cookie at the operator interface.

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
        """Return who is signed in at this browser; whoever holds the data directory, on its machine alone.

        Browsers send a cookie to every port of a host. So one of loopback counts for the user alone who signed in
        there: another one, who listens at another port and has a page lead there, holds nothing by it.
        Raise `SessionEndedError`.
        """
        text = self.text(request)
        found = self.sessions.caller(text, address_of(request), is_use=BY_ITSELF not in request.headers)
        bound = machine_user_of(text)
        if bound is not None and bound != machine_user(request):
            raise SessionEndedError
        if found.user is None and self.port is None:
            raise SessionEndedError
        return found

    def let_in(self, request: Request, caller: Caller) -> None:
        """Count a connection by TLS as its user's from now on: who is signed in is no stranger, whom others crowd out.

        At the health port nobody is ever more, as there strangers shut nobody out.
        """
        connection: Connection | None = request.scope.get("extensions", {}).get("connection")
        if connection is not None and self.port is None:
            connection.authenticated(f"user:{caller.user}")

    def is_signed_in(self, request: Request) -> bool:
        """Say whether somebody is."""
        try:
            self.signed_in(request)
        except SessionEndedError:
            return False
        return True

    def check_host(self, request: Request) -> None:
        """Raise `HostUnknownError` for a name that is none of ours."""
        host = request.headers.get("host", "")
        if not is_ours(host, self.names):
            raise HostUnknownError(host=host.partition(":")[0][:_MAX_CHARS])

    def check_from_here(self, request: Request, secret: str, token: str) -> None:
        """Raise `RequestForgedError` unless a page of ours sent it, which was made for who holds this secret."""
        self.check_origin(request)
        if not secret or not hmac.compare_digest(_unmasked(token).encode(), csrf_of(secret).encode()):
            raise RequestForgedError(detail="its token is missing, or belongs to an earlier sign-in")

    def check_origin(self, request: Request) -> None:
        """Raise `RequestForgedError` unless the browser says that a page of ours sent it."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = self.origin(request)
        if site is None and origin is None:
            raise RequestForgedError(detail="it has neither Origin nor Sec-Fetch-Site")
        # A page that sends no Referer says `null`; then the browser's own word on where it comes from counts.
        allowed = {own} if site is None else {own, "null"}
        if site not in {None, "same-origin"} or (origin is not None and origin.lower() not in allowed):
            raise RequestForgedError(detail="it comes from another origin")

    def masked(self, request: Request, entropy: Entropy) -> str:
        """Return what forms of a page that is packed show: another text each time, so that its size tells nothing.

        (BREACH, https://breachattack.com)
        """
        token = csrf_of(self.text(request))
        raw = _decoded(token)
        mask = entropy.token(len(raw))
        return _encoded(mask + bytes(a ^ b for a, b in zip(mask, raw, strict=True)))

    def origin(self, request: Request) -> str:
        """Return under which origin the browser knows this server."""
        return f"{'https' if self.port is None else 'http'}://{request.headers.get('host', '')}".lower()

    def keep(self, response: Response, name: str, text: str, seconds: int | None = None) -> None:
        """Let the browser keep a cookie until it is closed, or so long, for this host and for no script."""
        response.set_cookie(name, text, seconds, path="/", secure=self.port is None, httponly=True, samesite="lax")

    def drop(self, response: Response, name: str) -> None:
        """Let the browser forget a cookie."""
        response.delete_cookie(name, path="/", secure=self.port is None, httponly=True, samesite="lax")


def csrf_of(secret: str) -> str:
    """Return what a page shows that was made for who holds this secret, the session or what comes before one."""
    return _encoded(hmac.digest(secret.encode(), _CSRF, "sha256"))


def _unmasked(token: str) -> str:
    """Return the token of a form, whether it was masked or not; what is none of both is left as it is."""
    if len(token) != _MASKED_CHARS:
        return token
    try:
        raw = _decoded(token)
        half = len(raw) // 2
        return _encoded(bytes(a ^ b for a, b in zip(raw[:half], raw[half:], strict=True)))
    except ValueError:  # also of one with signs in it that base64 has none of: it is shorter than it looks
        return token


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def address_of(request: Request) -> str:
    """Return from where a request came."""
    return request.client.host if request.client else ""


def machine_user(request: Request) -> int | None:
    """Return which user of this machine sent a request, where it came over loopback and without TLS.

    It is asked for once: what goes on behind a request outlives its connection, of which the kernel says nothing then.
    """
    peer, here = request.client, request.scope.get("server")
    if request.url.scheme != "http" or peer is None or here is None:
        return None
    if _USER not in request.scope:
        request.scope[_USER] = user_of((peer.host, peer.port), (here[0], here[1]))
    user: int | None = request.scope[_USER]
    return user


def path_of(request: Request) -> str:
    """Return the path of a request as an address has it: names may have signs in them that mean something there."""
    return quote(request.scope["path"], safe=_IN_PATHS)
