"""The one place where a refusal leaves an HTTP route; each interface says how it renders one."""

from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError
from birthmark.net.http import ASGIApp, Receive, Scope, Send


class LazyApp:
    """See the module. `make` does not wait: two first requests cannot both make it."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as what is made does."""
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, send)


Handler = Callable[[Request], Awaitable[Response]]


def whole(handler: Handler) -> Handler:
    """Return `handler` for requests of which the body is there, so that whoever may ask may still when it is done."""

    async def answer(request: Request) -> Response:
        await request.body()
        return await handler(request)

    return answer


def refusing(handler: Handler, render: Callable[[BirthmarkError, Request], Response]) -> Handler:
    """Return `handler` with its refusals answered by `render`."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except BirthmarkError as error:
            return render(error, request)

    return answer


class StaticRoutes:
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
