"""*Who is signed in*: what one may do, at which browsers one is signed in, and what else acts in one's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.iam.model import MACHINE_USER
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.users import said_roles


@dataclass(frozen=True, slots=True)
class MePage:
    """The page; what its forms ask for are routes of sign-in (`operator_api.account_pages`)."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return its route."""
        return [self.site.route("/me", self.show)]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw it."""
        ask, user = self.site.inside.ask, who.caller.user or MACHINE_USER
        known = await ask(who, "/people/me")
        values = {
            "is_person": who.caller.user is not None,
            "roles": said_roles(known["roles"]),
            "sessions": of(user, (await ask(who, "/people/sessions")).items),
            "tokens": of(user, (await ask(who, "/people/tokens")).items),
            "own": who.caller.actor.told["session"],
            "url": (await ask(who, "/server/endpoints")).get("console") or self.site.desk.gate.origin(request),
        }
        return await self.site.draw(request, who, "me.html", values)


def of(user: str, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the rows of one user."""
    return [row for row in rows if row["user"] == user]
