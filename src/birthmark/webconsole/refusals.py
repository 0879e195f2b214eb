"""*Refusals*: `birthmark why` as pages. Grouped by reason, as a list, and a detail page."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError, InvalidRequestError, NotFoundError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_pem
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.refusal_translations import localize_refusal

PERIODS: Mapping[str, tuple[int, str]] = {
    "1h": (3600, mark_for_translation("the last hour")),
    "24h": (86_400, mark_for_translation("the last 24 hours")),
    "7d": (7 * 86_400, mark_for_translation("the last 7 days")),
}
_DAY, _WEEK = "24h", "7d"
_PAGE, _MAX_CHARS = 50, 256
_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DEVICES = ("device_id", "registration_id", "thing", "common_name")
"""Facts that identify a device, the most reliable first."""
_SEVERAL, _LOOKED = 2, 100
_PEM = "application/x-pem-file"


@dataclass(frozen=True, slots=True)
class RefusalFilter:
    """Filter of the refusals."""

    subject: str = ""
    code: str = ""
    before: str = ""
    back: str = _DAY

    @classmethod
    def of(cls, request: Request) -> "RefusalFilter":
        """Return the filter in a URL; for pasted text with a tracking id, that refusal."""
        given = request.query_params
        subject = given.get("subject", "").strip()
        found, back = _ID.search(subject), given.get("back", "")
        return cls(
            (found[0] if found else subject)[:_MAX_CHARS],
            given.get("code", "").strip()[:_MAX_CHARS],
            given.get("before", "")[:_MAX_CHARS],
            back if back in PERIODS else _DAY,
        )

    @property
    def is_list(self) -> bool:
        """Whether the filter selects refusals, rather than the reasons of all."""
        return bool(self.subject or self.code or self.before)

    @property
    def asked(self) -> Mapping[str, str]:
        """The filter's parameters that are set."""
        every = {"subject": self.subject, "code": self.code}
        return {name: value for name, value in every.items() if value}

    @property
    def command(self) -> str:
        """The equivalent command."""
        words = ["birthmark", "why"]
        if not self.is_list:
            return shlex.join([*words, "--reasons", "--last", self.back])
        words += [self.subject] if self.subject else []
        words += ["--code", self.code] if self.code else []
        return shlex.join([*words, "--limit", str(_PAGE)])

    def address(self, before: str = "") -> str:
        """Return the URL of a page with this filter."""
        asked = {**self.asked, **({"before": before} if before else {})}
        asked |= {} if self.is_list else {"back": self.back}
        return f"/refusals?{urlencode(asked)}"


@dataclass(frozen=True, slots=True)
class RefusalsPages:
    """The reasons, the list, and the page of a refusal."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/refusals", self.show),
            route("/refusals/{id}", self.one),
            route("/refusals/{id}/certificate.pem", self.certificate),
        ]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the reasons, or the matching refusals; redirect to a refusal that is named."""
        wanted = RefusalFilter.of(request)
        if wanted.is_list:
            return await self._list(request, caller, wanted)
        seconds, words = PERIODS[wanted.back]
        found = await self.site.inside.ask(caller, "/refusals/reasons", back_s=seconds)
        values = {
            "filter": wanted,
            "reasons": [{**localized_reason(one), **(await self._refused_of(caller, one))} for one in found.items],
            "total": sum(one["count"] for one in found.items),
            "period": translate(words),
            "periods": [(name, translate(text)) for name, (_, text) in PERIODS.items()],
        }
        return await self.site.draw(request, caller, "refusals.html", values)

    async def _refused_of(self, caller: SignedInUser, reason: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the clients that were recently refused for a reason, each once, and whether there may be more."""
        if reason["latest"] is None or reason["count"] < _SEVERAL:
            return {"who": [], "is_more": False}
        found = await self.site.inside.ask(caller, "/refusals", code=reason["code"], limit=_LOOKED)
        names = dict.fromkeys(name for row in found.items if (name := find_client_name(row["facts"])))
        return {"who": list(names), "is_more": len(found.items) == _LOOKED}

    async def _list(self, request: Request, caller: SignedInUser, refusal_filter: RefusalFilter) -> Response:
        before = refusal_filter.before or None
        found = await self.site.inside.ask(caller, "/refusals", before=before, limit=_PAGE, **refusal_filter.asked)
        rows: Sequence[Mapping[str, Any]] = found.items
        if len(rows) == 1 and rows[0]["id"].lower() == refusal_filter.subject.lower():
            return self.site.go(f"/refusals/{quote(rows[0]['id'], safe='')}")
        values = {
            "filter": refusal_filter,
            "rows": [{**localize_refusal(row), "whose": find_client_name(row["facts"])} for row in rows],
            "following": refusal_filter.address(rows[-1]["id"]) if len(rows) == _PAGE else None,
        }
        return await self.site.draw(request, caller, "refusals_list.html", values)

    async def one(self, request: Request, caller: SignedInUser) -> Response:
        """Render a refusal with its presented certificate, and the recent frequency of its reason."""
        wanted = request.path_params["id"][:_MAX_CHARS]
        refusal = await self._refusal(caller, wanted)
        if refusal is None:
            return await self.site.draw(request, caller, "refusal_gone.html", {"id": wanted}, 404)
        shown = await self._shown(caller, refusal)
        values = {
            "refusal": localize_refusal(refusal),
            "facts": [(key.replace("_", " "), value) for key, value in refusal["facts"].items()],
            "devices": await self._devices(caller, refusal["facts"]),
            "shown": shown,
            "is_gone": shown is None and bool(refusal["facts"].get("thumbprint")),
            "often": [
                (translate(PERIODS[back][1]), await self._count(caller, refusal["code"], back))
                for back in (_DAY, _WEEK)
            ],
            "command_line": f"birthmark why {shlex.quote(refusal['id'])}",
        }
        return await self.site.draw(request, caller, "refusal.html", values)

    async def certificate(self, request: Request, caller: SignedInUser) -> Response:
        """Send the presented certificate as a file."""
        refusal = await self._refusal(caller, request.path_params["id"][:_MAX_CHARS])
        found = None if refusal is None else await self._shown(caller, refusal)
        if found is None:
            return await self.site.draw(request, caller, "refusal_gone.html", {"id": request.path_params["id"]}, 404)
        return self.site.drawing.download("presented.pem", found.pem(), _PEM)

    async def _refusal(self, caller: SignedInUser, refusal_id: str) -> Mapping[str, Any] | None:
        found = await self.site.inside.ask(caller, "/refusals", subject=refusal_id, limit=1)
        return next((one for one in found.items if one["id"].lower() == refusal_id.lower()), None)

    async def _devices(self, caller: SignedInUser, facts: Mapping[str, str]) -> Sequence[str]:
        """Return the named devices that exist."""
        found: list[str] = []
        for name in dict.fromkeys(facts[key] for key in _DEVICES if facts.get(key)):
            try:
                await self.site.inside.ask(caller, "/devices/{name}", name)
            except (NotFoundError, InvalidRequestError):
                continue
            found.append(name)
        return found

    async def _shown(self, caller: SignedInUser, refusal: Mapping[str, Any]) -> Certificate | None:
        """Return the presented certificate; None if there was none, or it is no longer stored."""
        thumbprint = refusal["facts"].get("thumbprint", "")
        if not thumbprint:
            return None
        try:
            told = await self.site.inside.ask(caller, "/refusals/certificates/{thumbprint}", thumbprint)
            return parse_pem(told["certificate"])
        except (NotFoundError, InvalidRequestError, CertificateInvalidError):
            return None

    async def _count(self, caller: SignedInUser, code: str, back: str) -> int:
        try:
            found = await self.site.inside.ask(caller, "/refusals/reasons", back_s=PERIODS[back][0])
        except BirthmarkError:
            return 0
        return sum(one["count"] for one in found.items if one["code"] == code)


def localized_reason(reason: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a reason with its latest refusal in the user's language."""
    return reason if reason["latest"] is None else {**reason, "latest": localize_refusal(reason["latest"])}


def find_client_name(facts: Mapping[str, str]) -> str:
    """Return the best identifier of the refused client; empty if unknown."""
    known = (*_DEVICES, "user", "client_id", "subject_id", "access_key_id", "sni")
    return next((facts[name] for name in known if facts.get(name)), "")
