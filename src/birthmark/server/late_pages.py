"""The pages of the console, loaded when the first of them is asked for: a server that nobody looks at needs none.

They and what draws them take a tenth of a second and 10 MB; the loop goes on meanwhile.
"""

import asyncio
from collections.abc import Callable
from importlib import import_module

from birthmark.net.http import ASGIApp, Receive, Scope, Send

_CONSOLE = "birthmark.console.web.console"


class LatePages:
    """An application that is made at its first request."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the pages do."""
        if self._made is None:
            async with self._turn:
                if self._made is None:
                    await asyncio.to_thread(import_module, _CONSOLE)
                    self._made = self._make()
        await self._made(scope, receive, send)
