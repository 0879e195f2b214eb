"""ASGI wrappers for HTTP routes: refusals in the interface's format, complete bodies, lazy and static routes."""

from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send


class LazyApp:
    """ASGI application created on first use.

    `make` must not await, so that two first requests cannot both create it.
    """

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Create the application if necessary and call it."""
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, send)


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


class StaticRoutes:
    """ASGI application for fixed GET and POST paths, in front of another application with the same routes.

    The endpoints render every refusal themselves and raise no `HTTPException`.
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
