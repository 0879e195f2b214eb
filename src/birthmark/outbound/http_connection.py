"""One HTTP request over its own connection, with httpcore; imported at the first outbound call."""

import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import httpcore

from birthmark.outbound.ssrf_guard import CONNECT_S, PATIENCE_S

PROBLEMS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
"""Exceptions of a call, in addition to those of the system and TLS."""
Addresses = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the permitted addresses of a host. Raise `AddressRefusedError`."""


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to checked addresses of a host."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._way = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - library signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        problem: Exception = OSError("it has no address")
        for address in await self._addresses(host, port):
            try:
                return await self._way.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem


async def fetch_response(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    limit: int,
    *,
    context: ssl.SSLContext,
    addresses: Addresses,
) -> tuple[int, bytes]:
    """Return the response status and the body up to the first chunk that exceeds `most` bytes."""
    timeouts = {"connect": CONNECT_S, "read": PATIENCE_S, "write": PATIENCE_S, "pool": PATIENCE_S}
    pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=_GuardedBackend(addresses))
    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    async with pool, pool.stream(method, url, headers=told, content=body, extensions={"timeout": timeouts}) as got:
        text = b""
        async for part in got.aiter_stream():
            text += part
            if len(text) >= limit:
                break
        return got.status, text
