"""*Devices*: found as one types, by place and state, with the same filter in the address and as a command."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.console.inside import Person
from birthmark.console.web.language import say
from birthmark.console.web.site import Site
from birthmark.console.web.words import marked

STATES: Mapping[str, str] = {
    "connected": marked("connected"),
    "away": marked("away"),
    "unassigned": marked("never registered"),
    "disabled": marked("disabled"),
    "refused": marked("refused this week"),
    "ending": marked("certificate ends within 30 days"),
}
_AS_TYPED, _PAGE = 8, 50
_MAX_CHARS = 256


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices."""

    begin: str = ""
    at: str = ""
    state: str = ""
    after: str = ""

    @classmethod
    def of(cls, request: Request) -> "Filter":
        """Return what an address asks for."""
        given = request.query_params
        state = given.get("state", "")
        return cls(
            given.get("begin", "").strip()[:_MAX_CHARS],
            given.get("at", "")[:_MAX_CHARS],
            state if state in STATES else "",
            given.get("after", "")[: 4 * _MAX_CHARS],
        )

    @property
    def asked(self) -> Mapping[str, str]:
        """What is asked for, without what is not."""
        every = {"begin": self.begin, "at": self.at, "state": self.state}
        return {name: value for name, value in every.items() if value}

    @property
    def command(self) -> str:
        """The same as it is typed."""
        words = ["birthmark", "device", "find", *([self.begin] if self.begin else [])]
        words += ["--at", self.at] if self.at else []
        words += ["--state", self.state] if self.state else []
        return shlex.join(words)

    def address(self, after: str = "") -> str:
        """Return the address of a page of it."""
        asked = {**self.asked, **({"after": after} if after else {})}
        return f"/devices?{urlencode(asked)}" if asked else "/devices"


@dataclass(frozen=True, slots=True)
class DevicesPage:
    """The list, and what is found while one types."""

    site: Site

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [self.site.route("/devices", self.show), self.site.route("/find", self.find)]

    async def show(self, request: Request, who: Person) -> Response:
        """Draw a page of the list."""
        wanted = Filter.of(request)
        found = await self.site.inside.ask(who, "/devices", limit=_PAGE, after=wanted.after or None, **wanted.asked)
        values = {
            "filter": wanted,
            "rows": gathered(found.items),
            "following": None if found.next is None else wanted.address(found.next),
            "states": [(name, say(text)) for name, text in STATES.items()],
            "places": await self._places(who),
            "is_new": await self._is_new(who) if not found.items and not wanted.asked else False,
        }
        return await self.site.draw(request, who, "devices.html", values)

    async def find(self, request: Request, who: Person) -> Response:
        """Draw what is found while one types."""
        begin = request.query_params.get("begin", "").strip()[:_MAX_CHARS]
        rows: Sequence[Mapping[str, Any]] = ()
        if begin:
            found = await self.site.inside.ask(who, "/devices", begin=begin, limit=_AS_TYPED)
            rows = gathered(found.items)
        return self.site.drawing.page(request, "found.html", {"rows": rows, "begin": begin})

    async def _places(self, who: Person) -> Sequence[str]:
        hubs, services = await self.site.inside.ask(who, "/hubs"), await self.site.inside.look(who, "/dps")
        places = [f"hub/{one['name']}" for one in hubs.items]
        places += [f"dps/{one['name']}" for one in services.items] if services else []
        return [*places, "aws", "server"]

    async def _is_new(self, who: Person) -> bool:
        found = await self.site.inside.ask(who, "/devices", limit=1)
        return not found.items


def gathered(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return one row for each device, with the places where it is found, in their order."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault(row["name"], {"name": row["name"], "at": [], "states": []})
        one["at"].append(row["at"])
        if (state := row.get("state", "")) and state not in one["states"]:
            one["states"].append(state)
    return list(found.values())
