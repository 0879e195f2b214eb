"""*Settings*: the server's settings, each with its default and description. Read-only."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.page_base import PageRenderer

_MAX_CHARS = 64


@dataclass(frozen=True, slots=True)
class SettingFilter:
    """Filter of the settings."""

    begin: str = ""
    changed: bool = False

    @classmethod
    def of(cls, request: Request) -> "SettingFilter":
        """Return the filter in a URL."""
        given = request.query_params
        return cls(given.get("begin", "").strip()[:_MAX_CHARS], given.get("changed", "") == "yes")

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Return whether a setting matches."""
        return row["key"].startswith(self.begin) and (row["is_changed"] or not self.changed)

    @property
    def command(self) -> str:
        """The equivalent command."""
        words = ["birthmark", "server", "settings", *(["--changed"] if self.changed else [])]
        return shlex.join([*words, *(["--where", f"key={self.begin}*"] if self.begin else [])])

    def address(self) -> str:
        """Return the URL of the page with this filter."""
        asked = {"begin": self.begin, "changed": "yes" if self.changed else ""}
        return f"/settings?{urlencode({name: value for name, value in asked.items() if value})}"


@dataclass(frozen=True, slots=True)
class SettingsPage:
    """Page of the settings, the certificate, the addresses and the nodes."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [self.site.route("/settings", self.show)]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the settings that the user may read."""
        look, wanted = self.site.inside.look, SettingFilter.of(request)
        settings, certificate = await look(caller, "/server/settings"), await look(caller, "/server/certificate")
        machines = await look(caller, "/server/machines")
        values = {
            "filter": wanted,
            "groups": None if settings is None else grouped([one for one in settings.items if wanted.takes(one)]),
            "certificate": certificate,
            "services": addresses(await self.site.inside.ask(caller, "/server/endpoints")),
            "machines": machines["items"] if machines else [],
        }
        return await self.site.draw(request, caller, "settings.html", values)


def grouped(rows: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Return the settings by their table in the file, those without a table first."""
    found: dict[str, list[Mapping[str, Any]]] = {"": []}
    for row in rows:
        found.setdefault(row["key"].rpartition(".")[0], []).append(row)
    return [(name, some) for name, some in found.items() if some]


def addresses(services: Mapping[str, Any]) -> Sequence[tuple[str, Sequence[tuple[str, str]]]]:
    """Return the addresses of each service as readable pairs."""
    found: list[tuple[str, Sequence[tuple[str, str]]]] = []
    for name, told in services.items():
        parts = told.items() if isinstance(told, Mapping) else [("url", told)]
        pairs = [(key.replace("_", " "), str(value)) for key, value in parts if value is not None]
        found += [(name, pairs)] if pairs else []
    return found
