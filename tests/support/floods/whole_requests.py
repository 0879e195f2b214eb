"""No route looks at who asks before all of a request is there: a body may come for a minute."""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.routing import Route


async def answering_early(routes: Iterable[Route]) -> list[str]:
    """Return the routes that answer a request of which the body never comes."""
    early = []
    for route in routes:
        for method in sorted(route.methods or ()):
            is_asked = asyncio.Event()

            async def receive(is_asked: asyncio.Event = is_asked) -> Any:
                is_asked.set()
                await asyncio.Event().wait()

            scope = {
                "type": "http",
                "method": method,
                "path": route.path,
                "raw_path": route.path.encode(),
                "query_string": b"",
                "root_path": "",
                "scheme": "https",
                "server": ("localhost", 443),
                "headers": [(b"host", b"nobody.example")],
                "path_params": dict.fromkeys(route.param_convertors, "x"),
                "client": ("192.0.2.1", 1),
                "extensions": {"tls": None},
            }
            answer = asyncio.ensure_future(route.endpoint(Request(scope, receive)))
            await asyncio.wait((answer, asyncio.ensure_future(is_asked.wait())), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                early.append(f"{method} {route.path}")
            answer.cancel()
    return early
