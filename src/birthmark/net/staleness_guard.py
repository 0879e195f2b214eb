"""Requests and packets wait until this worker may act on what it remembers (ADR 16); alone it always may."""

import asyncio
from typing import Protocol

from birthmark.errors import BirthmarkError
from birthmark.net.http import ASGIApp, Receive, Scope, Send

_PATIENCE_S = 5.0


class Freshness(Protocol):
    """Whether what a worker remembers counts: others may have changed it while it stood still."""

    @property
    def is_fresh(self) -> bool: ...

    async def fresh(self) -> None:
        """Return when it does. Raise why it never will."""
        ...


class RequireFresh:
    """An ASGI application that sees no request before it is fresh; those that wait in vain are answered 503."""

    def __init__(self, app: ASGIApp, freshness: Freshness) -> None:
        self._app = app
        self._freshness = freshness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._freshness.is_fresh:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._freshness.fresh()
            except (BirthmarkError, TimeoutError):
                await _busy(scope, send)
                return
        await self._app(scope, receive, send)


async def _busy(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})
        return
    body = b"This worker does not know whether what it remembers is true; try again.\n"
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
