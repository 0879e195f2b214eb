"""Host header validation: an authority, or the request is refused (RFC 9112 section 3.2).

The check runs before any handler. URLs and resources are built from it, so a Host with a path would change the path.
"""

import re
from collections.abc import Callable

from starlette.responses import PlainTextResponse

from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send
from birthmark.net.errors import A_RIGHT_REQUEST
from birthmark.net.tls import NO_PEER, TlsPeer

OnRefused = Callable[[BirthmarkError, str, TlsPeer], None]

_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MAX_SHOWN = 200


class HostInvalidError(InvalidRequestError):
    """The Host header is not valid."""

    code = "net.host_invalid"
    cause = (
        "The request's Host header is {host}. The header must contain one host name or address, with an optional port."
    )
    fix = f"Send the host that the client connects to; a proxy must forward the client's Host header. {A_RIGHT_REQUEST}"
    host: str


class RequireAuthority:
    """ASGI middleware that passes only requests with one valid Host; others receive 400."""

    def __init__(self, app: ASGIApp, on_refused: OnRefused | None = None) -> None:
        self._app = app
        self._on_refused = on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope.get("headers", ()) if name == b"host"]
        if len(hosts) == 1 and _AUTHORITY.fullmatch(hosts[0]):
            await self._app(scope, receive, send)
            return
        found = ", ".join(ascii(host[:_MAX_SHOWN].decode("latin-1")) for host in hosts[:2]) or "missing"
        error = HostInvalidError(host=found)
        if self._on_refused is not None:
            client = scope.get("client")
            peer = scope.get("extensions", {}).get("tls", NO_PEER)
            self._on_refused(error, client[0] if client else "", peer)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await PlainTextResponse(f"{error!s}\n", 400)(scope, receive, send)
