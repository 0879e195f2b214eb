"""The one place where a refusal leaves an HTTP route; each interface says how it renders one."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from birthmark.errors import BirthmarkError

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
