"""Requests to a worker that may not act on what it remembers."""

import asyncio
from types import SimpleNamespace
from typing import Any

from birthmark.errors import UnavailableError
from birthmark.net.stale_cache_request_delay import RequireFresh


async def ask(is_fresh: bool, fresh: Any, kind: str = "http") -> list[Any]:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        sent.append("seen")

    async def send(message: Any) -> None:
        sent.append(message.get("status", message.get("code")) if "body" not in message else message["body"][:4])

    freshness = SimpleNamespace(is_fresh=is_fresh, wait_until_fresh=fresh)
    await RequireFresh(app, freshness)({"type": kind}, None, send)  # type: ignore[arg-type] # unused
    return sent


async def never() -> None:
    await asyncio.sleep(3600)


async def soon() -> None:
    await asyncio.sleep(0)


async def lost() -> None:
    raise UnavailableError


async def test_it_is_served_at_once_where_nothing_is_in_doubt() -> None:
    assert await ask(is_fresh=True, fresh=never) == ["seen"]


async def test_it_waits_until_the_worker_knows() -> None:
    assert await ask(is_fresh=False, fresh=soon) == ["seen"]


async def test_it_is_answered_503_by_a_worker_that_is_taken_for_dead() -> None:
    assert await ask(is_fresh=False, fresh=lost) == [503, b"This"]
    assert await ask(is_fresh=False, fresh=lost, kind="websocket") == [1013]
