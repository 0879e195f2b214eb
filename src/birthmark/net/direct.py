"""Routes of a fixed path, answered without the router: what devices ask for most need not walk through its layers."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.routing import Route

from birthmark.net.authority import ASGIApp, Receive, Scope, Send
from birthmark.net.refusing import Handler


class Direct:
    """An ASGI application in front of another that has the same routes; it takes GET and POST of fixed paths.

    The endpoints answer every refusal themselves, and raise no `HTTPException`.
    """

    def __init__(self, routes: Iterable[Route], otherwise: ASGIApp) -> None:
        self._endpoints: dict[str, Handler] = {route.path: route.endpoint for route in routes if "{" not in route.path}
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] not in {"GET", "POST"}:
            await self._otherwise(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
