"""*Devices*: each device once, in all scopes.

Sort order, filter and page are in the URL; the page shows the equivalent command.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer

STATES: Mapping[str, str] = {
    "revoked": mark_for_translation("revoked"),
    "connected": mark_for_translation("connected"),
    "away": mark_for_translation("away"),
    "unassigned": mark_for_translation("never registered"),
    "disabled": mark_for_translation("disabled"),
    "refused": mark_for_translation("refused this week"),
    "ending": mark_for_translation("certificate expires within 30 days"),
}
KINDS: Mapping[str, str] = {
    "revoked": "bad",
    "disabled": "off",
    "refused": "bad",
    "ending": "warn",
    "away": "warn",
    "unassigned": "off",
}
"""Style of each state."""
_ALONE = frozenset({"revoked", "disabled"})
"""States that hide all others."""
_AS_TYPED, _PAGE = 8, 50
_MAX_CHARS = 256
_MAX_BACK = 20
_MAX_DIGITS = 6


@dataclass(frozen=True, slots=True)
class DevicesFilter:
    """Filter of the devices."""

    begin: str = ""
    at: str = ""
    state: str = ""
    order: str = ""
    after: str = ""
    number: int = 1
    back: tuple[str, ...] = ()
    """Starts of the previous pages, nearest last; limited to the nearest ones."""

    @classmethod
    def of(cls, request: Request) -> "DevicesFilter":
        """Return the filter in a URL."""
        given = request.query_params
        state = given.get("state", "")
        return cls(
            given.get("begin", "").strip()[:_MAX_CHARS],
            given.get("at", "")[:_MAX_CHARS],
            state if state in STATES else "",
            "ends" if given.get("order") == "ends" else "",
            given.get("after", "")[: 4 * _MAX_CHARS],
            _number(given.get("page", "")),
            tuple(one[: 4 * _MAX_CHARS] for one in given.getlist("back")[-_MAX_BACK:]),
        )

    @property
    def asked(self) -> Mapping[str, str]:
        """The filter's parameters that are set."""
        every = {"begin": self.begin, "at": self.at, "state": self.state, "order": self.order}
        return {name: value for name, value in every.items() if value}

    @property
    def command(self) -> str:
        """The equivalent command."""
        words = ["birthmark", "device", "find", *([self.begin] if self.begin else [])]
        words += ["--at", self.at] if self.at else []
        words += ["--state", self.state] if self.state else []
        words += ["--sort", self.order] if self.order else []
        return shlex.join(words)

    @property
    def address(self) -> str:
        """The URL of this page."""
        asked: dict[str, object] = dict(self.asked)
        if self.after:
            asked |= {"after": self.after, "page": self.number, "back": self.back}
        return f"/devices?{urlencode(asked, doseq=True)}" if asked else "/devices"

    @property
    def first(self) -> "DevicesFilter":
        """The first page with this filter."""
        return replace(self, after="", number=1, back=())

    @property
    def previous(self) -> "DevicesFilter | None":
        """The previous page, if any."""
        if not self.back:
            return self.first if self.after else None
        return replace(self, after=self.back[-1], number=max(1, self.number - 1), back=self.back[:-1])

    def following(self, after: str) -> "DevicesFilter":
        """Return the page that starts after a device."""
        back = (*self.back, self.after)[-_MAX_BACK:] if self.after else ()
        return replace(self, after=after, number=self.number + 1, back=back)

    def sorted_by(self, order: str) -> "DevicesFilter":
        """Return the first page of the same devices in another order."""
        return replace(self.first, order=order)


@dataclass(frozen=True, slots=True)
class ListCount:
    """Number of devices in a list, exact or as a lower bound."""

    devices: int
    is_more: bool = False

    def pages(self, of: int) -> int:
        """Return the number of pages."""
        return max(1, -(-self.devices // of))


@dataclass(frozen=True, slots=True)
class DevicesPage:
    """The list, and its incremental search."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [self.site.route("/devices", self.show), self.site.route("/find", self.find)]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render a page of the device list."""
        wanted = DevicesFilter.of(request)
        found = await self.site.inside.ask(caller, "/devices", limit=_PAGE, after=wanted.after or None, **wanted.asked)
        values = {
            "filter": wanted,
            "rows": [_select_states(row) for row in found.items],
            "following": None if found.next is None else wanted.following(found.next),
            "count": await self._count(caller, wanted, len(found.items), is_last=found.next is None),
            "page_of": _PAGE,
            "states": [(name, translate(text)) for name, text in STATES.items()],
            "places": await self._places(caller),
            "is_new": await self._is_new(caller) if not found.items and not wanted.asked else False,
        }
        return await self.site.draw(request, caller, "devices.html", values)

    async def find(self, request: Request, caller: SignedInUser) -> Response:
        """Render the results of the incremental search."""
        begin = request.query_params.get("begin", "").strip()[:_MAX_CHARS]
        rows: Sequence[Mapping[str, Any]] = ()
        if begin:
            found = await self.site.inside.ask(caller, "/devices", begin=begin, limit=_AS_TYPED)
            rows = found.items
        return self.site.drawing.page(request, "found.html", {"rows": rows, "begin": begin})

    async def _count(
        self, caller: SignedInUser, device_filter: DevicesFilter, shown: int, *, is_last: bool
    ) -> "ListCount":
        """Return the number of devices: exact on the last page, otherwise counted within a cost limit."""
        if is_last:
            return ListCount((device_filter.number - 1) * _PAGE + shown)
        told = await self.site.inside.ask(caller, "/figures/found", **device_filter.asked)
        row: Mapping[str, Any] = told.items[0] if told.items else {"count": None, "is_more": True}
        count = max(row["count"] or 0, device_filter.number * _PAGE) if row["is_more"] else row["count"]
        return ListCount(count, is_more=row["is_more"])

    async def _places(self, caller: SignedInUser) -> Sequence[str]:
        hubs, services = await self.site.inside.ask(caller, "/hubs"), await self.site.inside.look(caller, "/dps")
        places = [f"hub/{one['name']}" for one in hubs.items]
        places += [f"dps/{one['name']}" for one in services.items] if services else []
        return [*places, "aws", "server"]

    async def _is_new(self, caller: SignedInUser) -> bool:
        found = await self.site.inside.ask(caller, "/devices", limit=1)
        return not found.items


def _select_states(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a device with its relevant states: a final state only, or all temporary ones with its connection."""
    states = row["states"][:1] if _ALONE & set(row["states"]) else row["states"]
    return {**row, "states": [(one, KINDS.get(one, "")) for one in states]}


def _number(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 1
