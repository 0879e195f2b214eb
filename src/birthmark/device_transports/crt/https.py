"""HTTPS by awscrt: one connection per request, with limits for time and size."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from awscrt import http, io
from awscrt.exceptions import AwsCrtError

from birthmark.device_transports.crt.tls import (
    CRT_TIMEOUT_S,
    check_proxy,
    check_trust,
    client_context,
    crt_proxy,
    translate_error,
    wrap_future,
)
from birthmark.device_transports.errors import LinkAnswerError, LinkTimeoutError
from birthmark.device_transports.identity_and_trust import ServerTrust, TokenIdentity
from birthmark.device_transports.ports import HttpResponse
from birthmark.device_transports.urls import MAX_ANSWER_BYTES, HttpTarget, parse_url


@dataclass(frozen=True, slots=True)
class CrtHttps:
    """`HttpsClient` by awscrt."""

    identity: TokenIdentity
    trust: ServerTrust
    timeout_s: float = CRT_TIMEOUT_S

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        target = parse_url(url)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._request(method, target, headers, body)
        except AwsCrtError as error:
            await check_proxy(target.host, target.port)
            raise translate_error(error, target.host, target.port, self.identity) from error
        except TimeoutError as error:
            raise LinkTimeoutError(host=target.host, port=target.port, seconds=f"{self.timeout_s:g}") from error

    async def _request(self, method: str, target: HttpTarget, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        tls = client_context(self.identity, self.trust).new_connection_options()
        tls.set_server_name(target.host)
        options = io.SocketOptions()
        options.connect_timeout_ms = int(self.timeout_s * 1000)
        bootstrap = io.ClientBootstrap.get_or_create_static_default()
        opening = wrap_future(
            http.HttpClientConnection.new(
                target.host, target.port, bootstrap, options, tls, crt_proxy(target.host, target.port)
            )
        )
        await check_trust(opening, target.host, target.port, self.trust)
        connection = await opening
        answer = _Answer()
        try:
            all_headers = {"Host": target.authority, **headers, "Content-Length": str(len(body))}
            given = http.HttpHeaders(list(all_headers.items()))
            stream = connection.request(
                http.HttpRequest(method, target.path, given, BytesIO(body)), answer.on_response, answer.on_body
            )
            stream.activate()
            await wrap_future(stream.completion_future)
        finally:
            await wrap_future(connection.close())
        if answer.is_too_large:
            raise LinkAnswerError(host=target.host, port=target.port, reason=f"more than {MAX_ANSWER_BYTES} bytes")
        return HttpResponse(answer.status, answer.headers, bytes(answer.body))


@dataclass(slots=True)
class _Answer:
    """HTTP response that awscrt's thread fills before its future completes."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    is_too_large: bool = False

    def on_response(self, *, status_code: int, headers: Sequence[tuple[str, str]], **_: Any) -> None:
        self.status = status_code
        self.headers = {name.lower(): value for name, value in headers}

    def on_body(self, *, chunk: bytes, **_: Any) -> None:
        if len(self.body) + len(chunk) > MAX_ANSWER_BYTES:
            self.is_too_large = True  # the rest is read and dropped, within the timeout
        else:
            self.body += chunk
