"""The pages by which people sign in at a provider, and come back."""

import base64
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.console.desk import Desk, browser_of
from birthmark.console.gate import local_path
from birthmark.console.pages import link, page, paragraph
from birthmark.console.sign_in import WITH
from birthmark.people.oidc import GOOD_FOR, Providers
from birthmark.people.oidc_model import Underway
from birthmark.text import decode_json


@dataclass(frozen=True, slots=True)
class ProviderPages:
    """To a provider and back."""

    desk: Desk
    providers: Providers

    def routes(self) -> list[Route]:
        """Return the pages."""
        route = self.desk.route
        return [
            route(f"{WITH}/{{name}}", self.leave, "POST"),
            route(f"{WITH}/{{name}}/callback", self.come_back),
        ]

    async def leave(self, request: Request) -> Response:
        """Send a browser to a provider, by a page: browsers follow no form to another origin (`form-action`)."""
        given, name = await self.desk.form_before(request), request.path_params["name"]
        path = local_path(given.get("next"))
        url, kept = await self.providers.begin(name, self._back_at(request, name), path, given.get("code", ""))
        host = urlsplit(url).hostname or ""
        response = page(
            f"On to {host}", paragraph("You sign in there, and come back."), link(url, "Continue"), leads_to=url
        )
        text = base64.urlsafe_b64encode(msgspec.json.encode(kept)).decode()
        self.desk.gate.keep(response, self._cookie, text, int(GOOD_FOR.total_seconds()))
        return response

    async def come_back(self, request: Request) -> Response:
        """Sign in whom the provider knows."""
        name, kept = request.path_params["name"], self._kept(request)
        given = dict(request.query_params)
        text = await self.providers.finish(name, given, kept, self._back_at(request, name), browser_of(request))
        response = await self.desk.signed_in(request, text, local_path(kept.path if kept else None))
        self.desk.gate.drop(response, self._cookie)
        return response

    @property
    def _cookie(self) -> str:
        return f"{self.desk.gate.cookie}-with"

    def _kept(self, request: Request) -> Underway | None:
        try:
            return decode_json(base64.urlsafe_b64decode(request.cookies.get(self._cookie, "")), Underway)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _back_at(self, request: Request, name: str) -> str:
        return f"{self.desk.gate.origin(request)}{WITH}/{name}/callback"
