"""HTTP with uvicorn's protocol on our plaintext transport, with additional limits.

Headers are limited in bytes and time, the body in bytes (per route, while it is read) and time, idle connections in
time. A request that exceeds a limit or violates HTTP receives one response, and one refusal is recorded. The ASGI scope
carries the TLS peer as `scope["extensions"]["tls"]`; WebSocket upgrades become ASGI too (`upgrade`).
"""

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from birthmark.errors import BirthmarkError
from birthmark.net.accepted_connection import Connection, PendingAnswer, PlainTransport
from birthmark.net.errors import (
    MAX_FIELDS,
    BodyTooLargeError,
    HeadersTooLargeError,
    HttpBrokenError,
    RequestCutOffError,
    TooSlowError,
    slow_peer_facts,
)
from birthmark.net.fair_scheduler import Backlog
from birthmark.net.header_case import Capitals
from birthmark.net.listener_limits import Limits
from birthmark.net.tls import TlsPeer

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
BodyLimit = Callable[[bytes], int]
"""Returns the maximum body size for a request target as sent."""
# Chunks of one byte take six on the wire; any more than this besides the body can only be endless trailers.
_RAW_FACTOR = 8
# Pipelined requests; each is a waiting object, however few its bytes.
_MAX_AHEAD = 16
_BUSY = 503
_BACKSTOP_S = 5.0
PROGRESS_BYTES = 1024 * 1024
"""Part of a streamed body that must arrive within `body_s`."""
UNCLAIMED_BYTES = 1024 * 1024
"""Maximum size of a streamed body until the application states that it processes the body while it arrives."""


class _RequestRejectedError(Exception):
    """Raised in a parser callback; the parser re-raises it as its own error."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits on unprocessed input."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: Limits,
        body_limit: BodyLimit,
        stream_limit: BodyLimit,
    ) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self._body_limit_of, self._stream_limit_of = body_limit, stream_limit
        self._next_progress = 0  # 0: not streamed
        self._streamed = 0
        self._body_limit = limits.max_body_bytes
        self._header_bytes = 0
        self._raw_bytes = 0
        self._body_bytes = 0
        self._in_headers = True
        self._is_refused = self._has_answered = False
        self._refusal: tuple[int, BirthmarkError] | None = None
        self.connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type] # needs only common transport methods
        if isinstance(transport, PlainTransport):
            self.connection = transport.connection
            self.connection.set_eviction_callback(lambda error: self._refuse(_BUSY, error))
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
                self._refuse(431, self._headers_too_large())
        else:
            self._raw_bytes += len(data)
            if self._raw_bytes > _RAW_FACTOR * self._body_limit + self._limits.max_header_bytes:
                self._refuse(413, self._body_too_large())

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = self._raw_bytes = self._body_bytes = 0
        self._set_deadline(self._limits.header_s, self._too_slow)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # fields after the body are trailers: uvicorn would add them to the request's headers
            super().on_header(name, value)
            if len(self.headers) > MAX_FIELDS:
                self._stop(431, self._headers_too_large())

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.max_header_bytes or len(self.headers) + self.url.count(b"&") > MAX_FIELDS:
            self._stop(431, self._headers_too_large())
        streamed = self._streamed = self._stream_limit_of(self.url)
        self._next_progress = PROGRESS_BYTES if streamed else 0
        self._body_limit = streamed or min(self._body_limit_of(self.url), self._limits.max_body_bytes)
        declared = next((value for name, value in self.headers if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared[:18]) > self._body_limit:
            self._stop(413, self._body_too_large())
        if streamed:
            self._body_limit = min(streamed, UNCLAIMED_BYTES)
        self._in_headers = False
        self._set_deadline(self._limits.body_s, self._too_slow)
        before = self.cycle
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_AHEAD:
            self._stop(400, HttpBrokenError())
        if self.cycle is not before:
            self.cycle.transport = Capitals(self.transport)  # type: ignore[assignment] # only the used methods

    def stream_body(self, scope: Scope) -> None:
        """Accept a body up to the stream limit, because the application processes it while it arrives."""
        if scope is self.scope:  # otherwise it is complete, and the client sends its next request
            self._body_limit = self._streamed or self._body_limit

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)  # a chunked body has no length to check before
        if self._body_bytes > self._body_limit:
            self._stop(413, self._body_too_large())
        if self._next_progress and self._body_bytes >= self._next_progress:
            self._next_progress = self._body_bytes + PROGRESS_BYTES
            self._set_deadline(self._limits.body_s, self._too_slow)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._set_deadline(None)
        super().on_message_complete()
        if self._unanswered() is None:
            self._understood()
            self._idle()

    def on_response_complete(self) -> None:
        self._has_answered = True
        if not self.pipeline:
            self._understood()
        super().on_response_complete()
        if not self._in_headers:  # of the next request, with its own timeout
            self._idle()

    def _idle(self) -> None:
        if not self.transport.is_closing() and self._unanswered() is None:  # the next may already run
            self._set_deadline(self._limits.idle_s, self.transport.close)

    def drain(self) -> PendingAnswer:
        """Answer pending requests and an imminent first request, then end; return whether a response is pending."""
        if self.transport.is_closing():
            return PendingAnswer.NOTHING
        if (waiting := self._unanswered()) is not None:
            waiting.keep_alive = False
            return PendingAnswer.PERHAPS if waiting.more_body else PendingAnswer.ANSWER
        if self._has_answered and not self._in_headers:  # of the next one
            self.transport.close()
            return PendingAnswer.NOTHING
        return PendingAnswer.PERHAPS

    def handle_websocket_upgrade(self) -> None:
        if self.connection is not None:
            self.connection.set_eviction_callback(None)
        # Until authentication; MQTT's own timeout is earlier and gives a reason.
        self._set_deadline(self._limits.mqtt_connect_s + _BACKSTOP_S, self.transport.abort)
        self.config = copy.copy(self.config)  # the next protocol takes its application from there
        self.config.loaded_app = self.app
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        del msg
        status, error = self._refusal or (400, HttpBrokenError())
        self._refuse(status, error)

    def record_refusal(self, error: BirthmarkError) -> None:
        """Record the refusal of this request, once."""
        if not self._is_refused and self.connection is not None:
            self._is_refused = True
            self.connection.refused(error)

    def _too_slow(self) -> None:
        if self._header_bytes or not self._in_headers:
            phase, setting = ("the headers", "header_s") if self._in_headers else ("the body", "body_s")
            facts = slow_peer_facts(phase, setting, self._limits)
            self._refuse(408, TooSlowError(**facts))
        else:
            self.transport.close()

    def _stop(self, status: int, error: BirthmarkError) -> None:
        self._refusal = (status, error)
        raise _RequestRejectedError

    def _refuse(self, status: int, error: BirthmarkError) -> None:
        if self.transport.is_closing():
            return
        waiting = self._unanswered()
        if waiting is None and not self._in_headers:  # remaining body of a request that was answered before its end
            self.transport.close()
            return
        self.record_refusal(error)
        if waiting is None or not waiting.response_started:  # no second response inside a started one
            body = (str(error) + "\n").encode()
            retry = "Retry-After: 5\r\n" if status == _BUSY else ""
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
        if waiting is not None:  # no more body will arrive
            waiting.disconnected = True
            waiting.message_event.set()

    def _unanswered(self) -> RequestResponseCycle | None:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle if cycle is not None and not cycle.response_complete else None

    def _headers_too_large(self) -> BirthmarkError:
        limit = self._limits.max_header_bytes
        return HeadersTooLargeError(limit=limit)

    def _body_too_large(self) -> BirthmarkError:
        limit = self._body_limit
        return BodyTooLargeError(limit=limit)

    def _understood(self) -> None:
        if self.connection is not None:
            self.connection.mark_processed()

    def _set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None:
        if self.connection is not None:
            self.connection.set_deadline(after_s, act)


def _websocket(*arguments: Any, **options: Any) -> asyncio.Protocol:
    from birthmark.net.bounded_websocket import BoundedWebSocket  # noqa: PLC0415 - most servers never need one

    return BoundedWebSocket(*arguments, **options)


class HttpService:
    """Creates a protocol per connection for one ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        body_limit: BodyLimit | None = None,
        stream_limit: BodyLimit = lambda _target: 0,
    ) -> None:
        self._config = uvicorn.Config(
            app,
            http=BoundedHttp,
            ws=cast("type[asyncio.Protocol]", _websocket),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=int(limits.idle_s),
            ws_max_size=limits.max_body_bytes,
            ws_ping_interval=None,  # MQTT has its own timeout, chosen by the client
            ws_per_message_deflate=False,
            server_header=False,
        )
        self._config.load()
        self._app = app
        self._state = ServerState()
        self._limits = limits
        self._body_limit = body_limit or (lambda _target: limits.max_body_bytes)
        self._stream_limit = stream_limit

    def protocol(self, peer: TlsPeer) -> asyncio.Protocol:
        """Return the protocol for a connection of `peer`."""
        made = BoundedHttp(self._config, self._state, self._limits, self._body_limit, self._stream_limit)
        made.app = _Guard(self._app, peer, made)
        return made


class _Guard:
    """Adds the TLS peer to the scope; an unhandled error becomes one response and one log line."""

    __slots__ = ("_app", "_peer", "protocol")

    def __init__(self, app: ASGIApp, peer: TlsPeer, protocol: BoundedHttp) -> None:
        self._app = app
        self._peer = peer
        self.protocol = protocol

    async def _run_in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application in its peer's turns: at the start, and again for each part of the body."""
        connection = self.protocol.connection
        if connection is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        backlog = Backlog.running()

        async def receive_in_turn() -> Message:
            message = await receive()
            await backlog.wait_for_turn(backlog.current_owner)
            return message

        await backlog.wait_for_turn(connection.owner)
        await backlog.account_steps(self._app(scope, receive_in_turn, send), connection)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream_body = partial(self.protocol.stream_body, scope)
        extensions = {"tls": self._peer, "connection": self.protocol.connection, "stream_body": stream_body}
        scope["extensions"] = {**(scope.get("extensions") or {}), **extensions}
        try:
            await self._run_in_turn(scope, receive, send)
        except ClientDisconnect:
            self.protocol.record_refusal(RequestCutOffError())
