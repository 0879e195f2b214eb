"""*Refusals*: `birthmark why` as pages. Grouped by reason, as a list, and one with all that is known of it."""

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
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_pem
from birthmark.webconsole.i18n import say
from birthmark.webconsole.labels import marked
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.refusal_texts import localize_refusal

PERIODS: Mapping[str, tuple[int, str]] = {
    "1h": (3600, marked("the last hour")),
    "24h": (86_400, marked("the last 24 hours")),
    "7d": (7 * 86_400, marked("the last 7 days")),
}
_DAY, _WEEK = "24h", "7d"
_PAGE, _MAX_CHARS = 50, 256
_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DEVICES = ("device_id", "registration_id", "thing", "common_name")
"""The facts that name a device, the surest first."""
_SEVERAL, _LOOKED = 2, 100
_PEM = "application/x-pem-file"


@dataclass(frozen=True, slots=True)
class RefusalFilter:
    """Which refusals."""

    subject: str = ""
    code: str = ""
    before: str = ""
    back: str = _DAY

    @classmethod
    def of(cls, request: Request) -> "RefusalFilter":
        """Return what an address asks for; of a pasted text with a tracking id in it, that one."""
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
        """Whether it is about some of them, and not about the reasons of all."""
        return bool(self.subject or self.code or self.before)

    @property
    def asked(self) -> Mapping[str, str]:
        """What is asked for, without what is not."""
        every = {"subject": self.subject, "code": self.code}
        return {name: value for name, value in every.items() if value}

    @property
    def command(self) -> str:
        """The same as it is typed."""
        words = ["birthmark", "why"]
        if not self.is_list:
            return shlex.join([*words, "--reasons", "--last", self.back])
        words += [self.subject] if self.subject else []
        words += ["--code", self.code] if self.code else []
        return shlex.join([*words, "--limit", str(_PAGE)])

    def address(self, before: str = "") -> str:
        """Return the address of a page of it."""
        asked = {**self.asked, **({"before": before} if before else {})}
        asked |= {} if self.is_list else {"back": self.back}
        return f"/refusals?{urlencode(asked)}"


@dataclass(frozen=True, slots=True)
class RefusalsPages:
    """The reasons, the list, and one refusal."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/refusals", self.show),
            route("/refusals/{id}", self.one),
            route("/refusals/{id}/certificate.pem", self.certificate),
        ]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw the reasons, or the refusals that are asked for; who names one is led to it."""
        wanted = RefusalFilter.of(request)
        if wanted.is_list:
            return await self._list(request, who, wanted)
        seconds, words = PERIODS[wanted.back]
        found = await self.site.inside.ask(who, "/refusals/reasons", back_s=seconds)
        values = {
            "filter": wanted,
            "reasons": [{**localized_reason(one), **(await self._refused_of(who, one))} for one in found.items],
            "total": sum(one["count"] for one in found.items),
            "period": say(words),
            "periods": [(name, say(text)) for name, (_, text) in PERIODS.items()],
        }
        return await self.site.draw(request, who, "refusals.html", values)

    async def _refused_of(self, who: SignedInUser, reason: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return who was refused for a reason lately, each once, and whether there may be more."""
        if reason["latest"] is None or reason["count"] < _SEVERAL:
            return {"who": [], "is_more": False}
        found = await self.site.inside.ask(who, "/refusals", code=reason["code"], limit=_LOOKED)
        names = dict.fromkeys(name for row in found.items if (name := whose(row["facts"])))
        return {"who": list(names), "is_more": len(found.items) == _LOOKED}

    async def _list(self, request: Request, who: SignedInUser, wanted: RefusalFilter) -> Response:
        before = wanted.before or None
        found = await self.site.inside.ask(who, "/refusals", before=before, limit=_PAGE, **wanted.asked)
        rows: Sequence[Mapping[str, Any]] = found.items
        if len(rows) == 1 and rows[0]["id"].lower() == wanted.subject.lower():
            return self.site.go(f"/refusals/{quote(rows[0]['id'], safe='')}")
        values = {
            "filter": wanted,
            "rows": [{**localize_refusal(row), "whose": whose(row["facts"])} for row in rows],
            "following": wanted.address(rows[-1]["id"]) if len(rows) == _PAGE else None,
        }
        return await self.site.draw(request, who, "refusals_list.html", values)

    async def one(self, request: Request, who: SignedInUser) -> Response:
        """Draw one refusal with what was shown in it, and how often its reason came lately."""
        wanted = request.path_params["id"][:_MAX_CHARS]
        refusal = await self._refusal(who, wanted)
        if refusal is None:
            return await self.site.draw(request, who, "refusal_gone.html", {"id": wanted}, 404)
        shown = await self._shown(who, refusal)
        values = {
            "refusal": localize_refusal(refusal),
            "facts": [(key.replace("_", " "), value) for key, value in refusal["facts"].items()],
            "devices": await self._devices(who, refusal["facts"]),
            "shown": shown,
            "is_gone": shown is None and bool(refusal["facts"].get("thumbprint")),
            "often": [(say(PERIODS[back][1]), await self._count(who, refusal["code"], back)) for back in (_DAY, _WEEK)],
            "command_line": f"birthmark why {shlex.quote(refusal['id'])}",
        }
        return await self.site.draw(request, who, "refusal.html", values)

    async def certificate(self, request: Request, who: SignedInUser) -> Response:
        """Send the certificate that was presented, as a file."""
        refusal = await self._refusal(who, request.path_params["id"][:_MAX_CHARS])
        found = None if refusal is None else await self._shown(who, refusal)
        if found is None:
            return await self.site.draw(request, who, "refusal_gone.html", {"id": request.path_params["id"]}, 404)
        return self.site.drawing.download("presented.pem", found.pem(), _PEM)

    async def _refusal(self, who: SignedInUser, wanted: str) -> Mapping[str, Any] | None:
        found = await self.site.inside.ask(who, "/refusals", subject=wanted, limit=1)
        return next((one for one in found.items if one["id"].lower() == wanted.lower()), None)

    async def _devices(self, who: SignedInUser, facts: Mapping[str, str]) -> Sequence[str]:
        """Return the devices that are named, and on record."""
        found: list[str] = []
        for name in dict.fromkeys(facts[key] for key in _DEVICES if facts.get(key)):
            try:
                await self.site.inside.ask(who, "/devices/{name}", name)
            except (NotFoundError, InvalidRequestError):
                continue
            found.append(name)
        return found

    async def _shown(self, who: SignedInUser, refusal: Mapping[str, Any]) -> Certificate | None:
        """Return what was presented; None where nothing was, or it is kept no more."""
        thumbprint = refusal["facts"].get("thumbprint", "")
        if not thumbprint:
            return None
        try:
            told = await self.site.inside.ask(who, "/refusals/certificates/{thumbprint}", thumbprint)
            return parse_pem(told["certificate"])
        except (NotFoundError, InvalidRequestError, CertificateInvalidError):
            return None

    async def _count(self, who: SignedInUser, code: str, back: str) -> int:
        try:
            found = await self.site.inside.ask(who, "/refusals/reasons", back_s=PERIODS[back][0])
        except BirthmarkError:
            return 0
        return sum(one["count"] for one in found.items if one["code"] == code)


def localized_reason(reason: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a reason with its latest refusal in the reader's language."""
    return reason if reason["latest"] is None else {**reason, "latest": localize_refusal(reason["latest"])}


def whose(facts: Mapping[str, str]) -> str:
    """Return by what name one knows who was refused; nothing where none was said."""
    known = (*_DEVICES, "user", "client_id", "subject_id", "access_key_id", "sni")
    return next((facts[name] for name in known if facts.get(name)), "")
