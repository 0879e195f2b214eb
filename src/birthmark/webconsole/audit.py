"""*Audit*: changes and their actors, latest first, and verification of the signed chains."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import ConflictError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole.event_labels import kind_of, words_of
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.refusals import PERIODS

_PAGE, _MAX_CHARS = 50, 512
VERIFY = "/audit/verify"


@dataclass(frozen=True, slots=True)
class AuditRowFilter:
    """Filter of the audit rows."""

    by: str = ""
    about: str = ""
    action: str = ""
    people: str = ""
    last: str = ""
    before: str = ""

    @classmethod
    def of(cls, request: Request) -> "AuditRowFilter":
        """Return the filter in a URL."""
        given = request.query_params
        by, about, action, before = (
            given.get(name, "").strip()[:_MAX_CHARS] for name in ("by", "about", "action", "before")
        )
        last = given.get("last", "")
        return cls(by, about, action, "yes" if given.get("people") else "", last if last in PERIODS else "", before)

    @property
    def asked(self) -> Mapping[str, str]:
        """The filter's parameters that are set."""
        every = {name: getattr(self, name) for name in ("by", "about", "action", "people", "last")}
        return {name: value for name, value in every.items() if value}

    @property
    def command(self) -> str:
        """The equivalent command."""
        given = [(f"--{name}", "" if name == "people" else value) for name, value in self.asked.items()]
        options = [word for pair in given for word in pair if word]
        return shlex.join(["birthmark", "server", "audit", "ls", *options])

    def address(self, before: str = "", **other: str) -> str:
        """Return the URL of a page of these rows, or of a narrower filter."""
        asked = {**self.asked, **other, **({"before": before} if before else {})}
        return f"/audit?{urlencode(asked)}" if asked else "/audit"


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Page of audit rows and their verification."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [route("/audit", self.show), route(VERIFY, self.back), route(VERIFY, self.verify, "POST")]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render a page of audit rows."""
        return await self._draw(request, caller, None)

    async def back(self, _request: Request, _who: SignedInUser) -> Response:
        """Redirect a browser without script that reloads a result to the rows."""
        return self.site.go("/audit")

    async def verify(self, request: Request, caller: SignedInUser) -> Response:
        """Verify the chains, and show the result in place, or without script on the page."""
        await self.site.form(request)
        verified = await self._verified(caller)
        if "hx-request" in request.headers:
            return self.site.drawing.page(request, "verified.html", {"verified": verified})
        return await self._draw(request, caller, verified)

    async def _draw(self, request: Request, caller: SignedInUser, verified: Mapping[str, Any] | None) -> Response:
        wanted = AuditRowFilter.of(request)
        asked = {"actor": wanted.by or None, "subject": wanted.about or None, "action": wanted.action or None}
        more: dict[str, Any] = {"people": "true"} if wanted.people else {}
        more |= {"back_s": PERIODS[wanted.last][0]} if wanted.last else {}
        found = await self.site.inside.ask(
            caller, "/audit/latest", limit=_PAGE, before=wanted.before or None, **asked, **more
        )
        values = {
            "filter": wanted,
            "rows": describe_rows(found.items),
            "following": None if found.next is None else wanted.address(found.next),
            "verified": verified,
            "periods": [(name, translate(text)) for name, (_, text) in PERIODS.items()],
        }
        return await self.site.draw(request, caller, "audit.html", values)

    async def _verified(self, caller: SignedInUser) -> Mapping[str, Any]:
        """Return the state of the chains: rows and heads, or the position of a break."""
        try:
            found = await self.site.inside.read(caller, VERIFY, {})
        except ConflictError as error:
            told_of = {**dict(zip(("problem", "fix"), error.explain_for_display(), strict=True)), "code": error.code}
            return {"is_whole": False, **told_of}
        chains = [
            {**one, "head": "" if one["head"] is None else json.dumps(one["head"], separators=(",", ":"))}
            for one in found["chains"]
        ]
        return {"is_whole": True, "rows": found["rows"], "chains": chains}


def describe_rows(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return rows with descriptions and readable details."""
    return [
        {
            **row,
            "words": words_of(row["action"], row["detail"]),
            "kind": kind_of(row["action"]),
            "facts": json.dumps(row["detail"], ensure_ascii=False, indent=2) if row["detail"] else "",
        }
        for row in rows
    ]
