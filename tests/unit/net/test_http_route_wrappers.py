"""The endpoint of a request: by a fixed path, by the first fixed segment of a path, by the order of the routes."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from birthmark.net.http_route_wrappers import Endpoints, Handler
from support.server.asgi import request


def saying(name: str) -> Handler:
    async def said(asked: Request) -> Response:
        parts = " ".join(str(part) for part in asked.path_params.values())
        return PlainTextResponse(f"{name} {parts} {(await asked.body()).decode()}")

    return said


ROUTES = [
    Route("/a", saying("fixed"), methods=["GET", "POST"]),
    Route("/a/{one}", saying("one"), methods=["GET"]),
    Route("/a/list", saying("list"), methods=["POST"]),
    Route("/a/{one}/{rest:path}", saying("rest"), methods=["GET", "POST"]),
    Route("/{label}/a", saying("second"), methods=["GET"]),
    Route("/{label}/b/{one}", saying("second of three"), methods=["PUT"]),
    Route("/a", saying("any"), methods=["DELETE"]),
    Route("/{one}/{two}/late", saying("late"), methods=["GET"]),
]
APPLICATION = Endpoints(ROUTES, Starlette())


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/a", "fixed  "),
        ("POST", "/a", "fixed  x"),
        ("HEAD", "/a", "fixed  "),
        ("DELETE", "/a", "any  x"),
        ("GET", "/a/list", "one list "),
        ("POST", "/a/list", "list  x"),
        ("POST", "/a/b/c/d", "rest b c/d x"),
        ("GET", "/l/a", "second l "),
        ("GET", "/{label}/a", "second {label} "),
        ("PUT", "/l/b/c", "second of three l c x"),
        ("GET", "/a/a", "one a "),
        ("GET", "/x/y/late", "late x y "),
        ("GET", "/a/y/late", "rest y late "),
    ],
)
async def test_a_path_is_answered_as_the_router_would(method: str, path: str, answer: str) -> None:
    given = b"" if method in {"GET", "HEAD"} else b"x"
    by_router = await request(Starlette(routes=ROUTES), method, path, body=given)
    by_endpoint = await request(APPLICATION, method, path, body=given)
    assert (by_endpoint.status, by_endpoint.text) == (by_router.status, by_router.text)
    if by_router.status == 200:
        assert by_endpoint.text == answer


@pytest.mark.parametrize("path", ["/b", "/", "", "/a/", "//", "/b/c/d", "*", "/l/b"])
async def test_other_paths_are_unknown(path: str) -> None:
    answer = await request(APPLICATION, "GET", path)
    assert (answer.status, answer.text) == (404, "Not Found")


@pytest.mark.parametrize("path", ["/a", "/l/a", "/l/b/c"])
async def test_another_method_is_refused_with_those_that_are_served(path: str) -> None:
    answer, by_router = [await request(app, "PATCH", path) for app in (APPLICATION, Starlette(routes=ROUTES))]
    assert (answer.status, answer.text) == (405, "Method Not Allowed")
    assert set(answer.headers["allow"].split(", ")) == set(by_router.headers["allow"].split(", "))
