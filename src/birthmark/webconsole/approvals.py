"""*Approvals*: pending requests with full details, for a second user to approve or reject."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.untrusted_json_and_text import decode_json
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer

PATH = "/approvals"
MAX_MESSAGES = 1000
"""Maximum number of a hub's messages that are counted."""


@dataclass(frozen=True, slots=True)
class ApprovalsPage:
    """The pending requests, and their approval or rejection."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route(PATH, self.show),
            route(f"{PATH}/approve", self.approve, "POST"),
            route(f"{PATH}/reject", self.reject, "POST"),
        ]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the requests that the user may execute."""
        found = await self.site.inside.ask(caller, "/people/approvals")
        rows = [
            {
                **one,
                "shown": readable(one["body"]),
                "is_own": one["asked_by"] == caller.caller.user,
                **(await self._effect(caller, one["request"])),
            }
            for one in found.items
        ]
        return await self.site.draw(request, caller, "approvals.html", {"rows": rows, "most": MAX_MESSAGES})

    async def _effect(self, caller: SignedInUser, request: str) -> Mapping[str, Any]:
        """Return the object of a request, and the objects that its deletion removes with it.

        Dependent objects exist for a hub or a provisioning service.
        """
        method, _, path = request.partition(" ")
        kind, *names = [unquote(part) for part in path.strip("/").split("/")]
        if method != "DELETE" or not names:
            return {"about": "", "devices": None, "messages": None}
        effect: dict[str, Any] = {"about": names[-1], "devices": None, "messages": None}
        place = {"hubs": "hub", "dps": "dps"}.get(kind)
        if place and len(names) == 1:
            counted = await self.site.inside.look(caller, "/figures/found", at=f"{place}/{names[0]}")
            effect["devices"] = counted.items[0] if counted and counted.items else None
            if place == "hub" and (kept := await self._messages(caller, names[0])) is not None:
                effect["messages"] = kept
        return effect

    async def _messages(self, caller: SignedInUser, hub: str) -> int | None:
        """Return the number of messages of a hub, at most `MAX_MESSAGES`; None if it does not exist."""
        try:
            return len((await self.site.inside.ask(caller, "/hubs/{name}/messages", hub, limit=MAX_MESSAGES)).items)
        except BirthmarkError:
            return None

    async def approve(self, request: Request, caller: SignedInUser) -> Response:
        """Approve a request."""
        told = await self._decide(request, caller, "/people/approvals/{id}/approve")
        said = translate("Approved. {who} can now repeat the operation once.")
        return self.site.go(PATH, message=said.format(who=told["asked_by"]))

    async def reject(self, request: Request, caller: SignedInUser) -> Response:
        """Reject a request."""
        told = await self._decide(request, caller, "/people/approvals/{id}/reject")
        if told["asked_by"] == caller.caller.user:
            return self.site.go(PATH, message=translate("Your request is withdrawn."))
        return self.site.go(
            PATH, message=translate("Rejected. {who} is notified at the next attempt.").format(who=told["asked_by"])
        )

    async def _decide(self, request: Request, caller: SignedInUser, path: str) -> Mapping[str, Any]:
        given = await self.site.form(request)
        told: Mapping[str, Any] = await self.site.do(caller, given, "POST", path, given.get("id", ""))
        return told


def readable(text: str) -> str:
    """Return JSON in readable form; empty for an empty body, and other text unchanged."""
    try:
        value = decode_json(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""
