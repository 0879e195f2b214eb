"""HTTP by uvicorn's protocol behind our plaintext transport, with the bounds it does not have.

Headers are bounded in bytes and time, the body in bytes (per route) and time, idle connections in time. The ASGI scope
carries the TLS peer as `scope["extensions"]["tls"]`; WebSocket upgrades go to uvicorn's WebSocket protocol and come out
as ASGI too.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from birthmark.net.connection import PlainTransport
from birthmark.net.limits import Limits
from birthmark.net.tls import TlsPeer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
BodyLimit = Callable[[Scope], int]
# Chunks of one byte take six on the wire; whoever sends more than this beside its body sends trailers without end.
_RAW_FACTOR = 8


class _RequestRefused(Exception):  # noqa: N818 - a way out of the parser's callbacks, never seen outside
    """Raised in a parser callback; the parser hands it back as its own error."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits on what a peer may send before it is understood."""

    def __init__(self, config: uvicorn.Config, state: ServerState, limits: Limits) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self._header_bytes = 0
        self._body_bytes = 0
        self._in_headers = True
        self._refusal: tuple[int, str] | None = None
        self._plain: PlainTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if isinstance(transport, PlainTransport):
            self._plain = transport
        self._set_deadline(self._limits.header_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.parser is None:
            return
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self._limits.max_header_bytes:
                self._refuse(431, f"The request's headers are larger than {self._limits.max_header_bytes} bytes.")
        else:
            self._body_bytes += len(data)
            if self._body_bytes > _RAW_FACTOR * self._limits.max_body_bytes:
                self._refuse(413, f"The request body is larger than {self._limits.max_body_bytes} bytes.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = self._body_bytes = 0
        self._set_deadline(self._limits.header_s, self._too_slow)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # what comes after the body is a trailer: uvicorn would add it to the request's headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.max_header_bytes:
            self._refusal = (431, f"The request's headers are larger than {self._limits.max_header_bytes} bytes.")
            raise _RequestRefused
        self._in_headers = False
        self._set_deadline(self._limits.body_s, self._too_slow)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._set_deadline(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._set_deadline(self._limits.idle_s, self.transport.close)

    def handle_websocket_upgrade(self) -> None:
        self._set_deadline(None)
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        if self._refusal is not None:
            self._refuse(*self._refusal)
        else:
            super().send_400_response(msg)

    def _too_slow(self) -> None:
        if self._header_bytes or not self._in_headers:
            self._refuse(408, "The request took too long to arrive.")
        else:
            self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        if self.transport.is_closing():
            return
        reason = HTTPStatus(status).phrase
        body = (text + "\n").encode()
        head = (
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None:
        if self._plain is not None:
            self._plain.connection.set_deadline(after_s, act)


class HttpService:
    """Makes a protocol per connection for one ASGI application."""

    def __init__(self, app: ASGIApp, limits: Limits, body_limit: BodyLimit | None = None) -> None:
        self._config = uvicorn.Config(
            app,
            http=BoundedHttp,
            ws="websockets-sansio",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=int(limits.idle_s),
            ws_max_size=limits.max_body_bytes,
            ws_per_message_deflate=False,
            server_header=False,
        )
        self._config.load()
        self._app = app
        self._state = ServerState()
        self._limits = limits
        self._body_limit = body_limit or (lambda _scope: limits.max_body_bytes)

    def protocol(self, peer: TlsPeer) -> asyncio.Protocol:
        """Return the protocol for a connection of `peer`."""
        config = copy.copy(self._config)
        config.loaded_app = _WithPeer(self._app, peer, self._body_limit)
        return BoundedHttp(config, self._state, self._limits)


class _WithPeer:
    """Adds the TLS peer to the scope and bounds the body."""

    __slots__ = ("_app", "_body_limit", "_peer")

    def __init__(self, app: ASGIApp, peer: TlsPeer, body_limit: BodyLimit) -> None:
        self._app = app
        self._peer = peer
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {**(scope.get("extensions") or {}), "tls": self._peer}
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._body_limit(scope)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > limit:
            await _too_large(send, limit)
            return
        await self._app(scope, _BoundedBody(receive, limit), send)


class _BoundedBody:
    """Counts what passes; a chunked body has no length to look at before."""

    __slots__ = ("_left", "_limit", "_receive")

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = self._left = limit

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                text = f"The request body is larger than {self._limit} bytes.\n"
                raise HTTPException(413, text, {"connection": "close"})  # rendered by Starlette
        return message


async def _too_large(send: Send, limit: int) -> None:
    text = f"The request body is larger than {limit} bytes.\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text})
