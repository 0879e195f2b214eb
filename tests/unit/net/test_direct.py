"""Fixed paths are answered without the router, everything else by it."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from birthmark.net.http_route_wrappers import StaticRoutes
from support.server.asgi import request


async def said(asked: Request) -> Response:
    label = asked.path_params.get("label")
    by = "direct" if "router" not in asked.scope else "router"
    return PlainTextResponse(f"{by} {label} {(await asked.body()).decode()}")


METHODS = ["GET", "POST", "PUT"]
ROUTES = [Route("/a", said, methods=METHODS), Route("/{label}/a", said, methods=METHODS)]
APPLICATION = StaticRoutes(ROUTES, Starlette(routes=ROUTES))


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/a", "direct None "),
        ("POST", "/a", "direct None x"),
        ("PUT", "/a", "router None x"),
        ("POST", "/l/a", "router l x"),
        ("GET", "/{label}/a", "router {label} "),
    ],
)
async def test_a_path_is_answered(method: str, path: str, answer: str) -> None:
    given = b"" if method == "GET" else b"x"
    assert (await request(APPLICATION, method, path, body=given)).text == answer


async def test_other_paths_are_unknown() -> None:
    assert (await request(APPLICATION, "GET", "/b")).status == 404
