"""An application that is made when it is first asked."""

import pytest
from starlette.responses import PlainTextResponse

from birthmark.net.bounded_http import ASGIApp
from birthmark.net.http_route_wrappers import LazyApp
from support.server.asgi import request


async def test_it_is_made_at_its_first_request_and_once() -> None:
    made: list[ASGIApp] = []

    def make() -> ASGIApp:
        made.append(PlainTextResponse("here"))
        return made[-1]

    late = LazyApp(make)
    assert not made
    assert [(await request(late, "GET", "/")).text for _ in range(3)] == ["here"] * 3
    assert len(made) == 1


async def test_what_failed_to_be_made_is_tried_again() -> None:
    attempts: list[int] = []

    def make() -> ASGIApp:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("not yet")
        return PlainTextResponse("here")

    late = LazyApp(make)
    with pytest.raises(RuntimeError, match="not yet"):
        await request(late, "GET", "/")
    assert (await request(late, "GET", "/")).text == "here"
