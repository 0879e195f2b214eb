"""Guard that delays requests and packets while this worker's cache is stale (ADR 16).

The cache of a single worker is always fresh.
"""

import asyncio
from typing import Protocol

from starlette.responses import PlainTextResponse

from birthmark.errors import BirthmarkError
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send

_PATIENCE_S = 5.0


class Freshness(Protocol):
    """Whether a worker's cache is valid: others may have changed the data while it was stalled."""

    @property
    def is_fresh(self) -> bool: ...

    async def wait_until_fresh(self) -> None:
        """Wait until the cache is fresh. Raise the reason if it cannot become fresh."""
        ...


class RequireFresh:
    """ASGI middleware that delays requests until the cache is fresh; after a timeout, they receive 503."""

    def __init__(self, app: ASGIApp, freshness: Freshness) -> None:
        self._app = app
        self._freshness = freshness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._freshness.is_fresh:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._freshness.wait_until_fresh()
            except (BirthmarkError, TimeoutError):
                await _refuse(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})
        return
    text = "This worker's cache may be outdated. Retry in 1 s.\n"
    await PlainTextResponse(text, 503, {"Retry-After": "1"})(scope, receive, send)
