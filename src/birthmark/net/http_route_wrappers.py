"""ASGI wrappers for HTTP routes: refusals in the interface's format, complete bodies, lazy and indexed routes."""

from collections.abc import Awaitable, Callable, Iterable
from functools import cache

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route

from birthmark.errors import BirthmarkError
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send


class LazyApp:
    """ASGI application created on first use.

    `make` must not await, so that two first requests cannot both create it.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._app = cache(make)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app()(scope, receive, send)


Handler = Callable[[Request], Awaitable[Response]]


def with_complete_body(handler: Handler) -> Handler:
    """Return `handler` with the body read first, so that authorization is checked after the body arrived."""

    async def answer(request: Request) -> Response:
        await request.body()
        return await handler(request)

    return answer


def refusing(handler: Handler, render: Callable[[BirthmarkError, Request], Response]) -> Handler:
    """Return `handler`, with refusals rendered by `render`."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except BirthmarkError as error:
            return render(error, request)

    return answer


class Endpoints:
    """ASGI application that finds the route of a request by the first fixed segment of its path.

    The first two segments count. Of several routes that match, the first one is called. The endpoints render every
    refusal themselves and raise no `HTTPException`. `websockets` serves WebSockets.
    """

    def __init__(self, routes: Iterable[Route], websockets: ASGIApp) -> None:
        self._routes: dict[tuple[int, str], list[tuple[int, Route]]] = {}
        self._websockets = websockets
        for order, route in enumerate(routes):
            segments = enumerate(route.path.split("/")[:3])
            key = next((one for one in segments if one[1] and "{" not in one[1]), (0, ""))  # the latter of every path
            self._routes.setdefault(key, []).append((order, route))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._websockets(scope, receive, send)
            return
        other: ASGIApp = (missing := PlainTextResponse("Not Found", 404))
        segments = enumerate(scope["path"].split("/", 3)[:3])
        for _, route in sorted(one for key in segments for one in self._routes.get(key, ())):
            match, matched = route.matches(scope)
            if match is Match.FULL:
                scope.update(matched)
                other = await route.endpoint(Request(scope, receive, send))
                break
            if match is Match.PARTIAL and other is missing:
                other = route.handle  # responds with 405
        await other(scope, receive, send)
