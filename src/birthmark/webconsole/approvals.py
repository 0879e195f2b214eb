"""*Approvals*: what waits for a second person, whole and readable, to be approved or rejected."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.untrusted_text import decode_json
from birthmark.webconsole.i18n import say
from birthmark.webconsole.page_base import PageRenderer

PATH = "/approvals"
MAX_MESSAGES = 1000
"""Messages of a hub that are counted."""


@dataclass(frozen=True, slots=True)
class ApprovalsPage:
    """What waits, and what is said to it."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route(PATH, self.show),
            route(f"{PATH}/approve", self.approve, "POST"),
            route(f"{PATH}/reject", self.reject, "POST"),
        ]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw what waits, as far as who looks might do it."""
        found = await self.site.inside.ask(who, "/people/approvals")
        rows = [
            {
                **one,
                "shown": readable(one["body"]),
                "is_own": one["asked_by"] == who.caller.user,
                **(await self._effect(who, one["request"])),
            }
            for one in found.items
        ]
        return await self.site.draw(request, who, "approvals.html", {"rows": rows, "most": MAX_MESSAGES})

    async def _effect(self, who: SignedInUser, request: str) -> Mapping[str, Any]:
        """Return the object of a request, and what goes with a hub or a provisioning service that is removed."""
        method, _, path = request.partition(" ")
        kind, *names = [unquote(part) for part in path.strip("/").split("/")]
        if method != "DELETE" or not names:
            return {"about": "", "devices": None, "messages": None}
        effect: dict[str, Any] = {"about": names[-1], "devices": None, "messages": None}
        place = {"hubs": "hub", "dps": "dps"}.get(kind)
        if place and len(names) == 1:
            counted = await self.site.inside.look(who, "/figures/found", at=f"{place}/{names[0]}")
            effect["devices"] = counted.items[0] if counted and counted.items else None
            if place == "hub" and (kept := await self._messages(who, names[0])) is not None:
                effect["messages"] = kept
        return effect

    async def _messages(self, who: SignedInUser, hub: str) -> int | None:
        """Return how many messages a hub keeps, `MAX_MESSAGES` for more; None where it is gone."""
        try:
            return len((await self.site.inside.ask(who, "/hubs/{name}/messages", hub, limit=MAX_MESSAGES)).items)
        except BirthmarkError:
            return None

    async def approve(self, request: Request, who: SignedInUser) -> Response:
        """Let it be done."""
        told = await self._decide(request, who, "/people/approvals/{id}/approve")
        said = say("Approved: {who} may do it now, once, by doing the same again.")
        return self.site.go(PATH, said=said.format(who=told["asked_by"]))

    async def reject(self, request: Request, who: SignedInUser) -> Response:
        """Do not let it be done."""
        told = await self._decide(request, who, "/people/approvals/{id}/reject")
        if told["asked_by"] == who.caller.user:
            return self.site.go(PATH, said=say("You ask for it no more."))
        return self.site.go(PATH, said=say("Rejected; {who} is told when trying again.").format(who=told["asked_by"]))

    async def _decide(self, request: Request, who: SignedInUser, path: str) -> Mapping[str, Any]:
        given = await self.site.form(request)
        told: Mapping[str, Any] = await self.site.do(who, given, "POST", path, given.get("id", ""))
        return told


def readable(text: str) -> str:
    """Return JSON as one reads it; nothing of a body that says nothing, and what is no JSON as it is."""
    try:
        value = decode_json(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""
