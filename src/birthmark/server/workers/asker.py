"""Who asks at the front of all workers: it says to the one that answers between which addresses the request came.

By these a worker files refusals, slows down who guesses, and asks the kernel for the user who connected.
"""

import json
from collections.abc import Sequence

from birthmark.net.http import ASGIApp, Receive, Scope, Send

FIELD = b"birthmark-asker"
"""A header of the front's own: what came by this name from outside is not passed on."""
Field = tuple[bytes, bytes]


def field_of(scope: Scope) -> Sequence[Field]:
    """Return the header that says who asks; none where nothing tells."""
    ends = scope.get("client"), scope.get("server")
    return () if None in ends else [(FIELD, json.dumps(ends).encode())]


class ForWhoAsks:
    """Serves a worker's own door: whoever reaches that holds the installation, so what the front says there holds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        said = next((value for name, value in headers if name == FIELD), None)
        if said is not None:
            client, server = json.loads(said)
            others = [one for one in headers if one[0] != FIELD]
            scope = {**scope, "client": tuple(client), "server": tuple(server), "headers": others}
        await self._app(scope, receive, send)
