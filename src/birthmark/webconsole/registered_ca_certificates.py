"""*CA certificates*: registered CAs of provisioning services and hubs, and pending ones. Read-only."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.clock_and_entropy import Clock
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.page_base import PageRenderer

PATH = "/certificates/authorities"
_PLACES = (
    ("/dps", "/dps/{name}/cas", "dps", mark_for_translation("Provisioning service {name}")),
    ("/hubs", "/hubs/{name}/cas", "hub", mark_for_translation("Hub {name}")),
)
"""Places with CA certificates: the places, the CAs of each, the command's first word, and its title."""


@dataclass(frozen=True, slots=True)
class AuthoritiesPage:
    """Page of all registered and pending CA certificates."""

    site: PageRenderer
    clock: Clock

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [self.site.route(PATH, self.show)]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the CAs of every place that the user may read."""
        found = [one for place in _PLACES for one in await self._of(caller, *place)]
        return await self.site.draw(request, caller, "authorities.html", {"places": found, "now": self.clock.now()})

    async def _of(
        self, caller: SignedInUser, places: str, path: str, word: str, title: str
    ) -> Sequence[Mapping[str, Any]]:
        known = await self.site.inside.look(caller, places)
        found = []
        for one in [] if known is None else known.items:
            cas = await self.site.inside.look(caller, path, one["name"])
            if cas is not None:
                option = f"--{word} {shlex.quote(one['name'])}"
                rows = [{**ca, "quoted": shlex.quote(ca["name"])} for ca in cas.items]
                found.append({"title": title, "name": one["name"], "word": word, "option": option, "rows": rows})
        return found
