"""Requests are worked on in the turns of whoever sends them."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from birthmark.net.bounded_http import BoundedHttp, _Guard
from birthmark.net.fair_scheduler import SLICE_S, now
from birthmark.net.tls import NO_PEER


async def test_a_request_does_not_wait_for_all_that_somebody_else_sent_before_it() -> None:
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del send
        await receive()
        until = now() + 2 * SLICE_S
        while now() < until:
            pass
        order.append(scope["owner"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        del message

    def asked(owner: str) -> "asyncio.Task[None]":
        protocol = SimpleNamespace(connection=SimpleNamespace(owner=owner), stream_body=print)
        guard = _Guard(app, NO_PEER, cast("BoundedHttp", protocol))
        return asyncio.create_task(guard({"type": "http", "owner": owner}, receive, send))

    await asyncio.gather(*[asked("many") for _ in range(50)], asked("one"))
    assert len(order) == 51
    assert order.index("one") < 10


async def test_what_is_no_request_has_no_turns() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        seen.append(scope["type"])

    protocol = SimpleNamespace(connection=SimpleNamespace(owner="one"), stream_body=print)
    guard = _Guard(app, NO_PEER, cast("BoundedHttp", protocol))
    await guard({"type": "websocket"}, cast("Any", None), cast("Any", None))
    assert seen == ["websocket"]
