"""An application that is made when it is first asked: a server of hundreds of routes is ready before it has them."""

from collections.abc import Callable

from birthmark.net.http import ASGIApp, Receive, Scope, Send


class Late:
    """See the module. `make` does not wait: two first requests cannot both make it."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as what is made does."""
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, send)
