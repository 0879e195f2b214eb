"""*Account*: the signed-in user's permissions, sessions, and other credentials that act for the user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.iam.model import MACHINE_USER
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.users import format_roles


@dataclass(frozen=True, slots=True)
class MePage:
    """The page; its forms use routes of sign-in (`operator_api.account_pages`)."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [self.site.route("/me", self.show)]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the page."""
        ask, user = self.site.inside.ask, caller.caller.user or MACHINE_USER
        known = await ask(caller, "/people/me")
        values = {
            "is_person": caller.caller.user is not None,
            "roles": format_roles(known["roles"]),
            "sessions": of(user, (await ask(caller, "/people/sessions")).items),
            "tokens": of(user, (await ask(caller, "/people/tokens")).items),
            "own": caller.caller.actor.told["session"],
            "url": (await ask(caller, "/server/endpoints")).get("console") or self.site.desk.gate.origin(request),
        }
        return await self.site.draw(request, caller, "me.html", values)


def of(user: str, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a user."""
    return [row for row in rows if row["user"] == user]
