"""*Certificates*: issued certificates by expiry, and the publication of revocations."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.ca.http import MAX_AGE_S
from birthmark.ca.ocsp_responder import LIFETIME
from birthmark.clock_and_entropy import Clock
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.pki.certificate_profiles import FOR_REQUESTS
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer

STATES: Mapping[str, str] = {
    "unrevoked": mark_for_translation("not revoked"),
    "valid": mark_for_translation("valid"),
    "ending": mark_for_translation("expires within 30 days"),
    "expired": mark_for_translation("ended"),
    "revoked": mark_for_translation("revoked"),
}
_QUERIES: Mapping[str, Mapping[str, Any]] = {
    "unrevoked": {"unrevoked": "true"},
    "valid": {"expiring_s": 36_500 * 86_400},
    "ending": {"expiring_s": 30 * 86_400},
    "expired": {"expired": "true"},
    "revoked": {"revoked": "true"},
}
_OPTIONS: Mapping[str, Sequence[str]] = {
    "unrevoked": ("--unrevoked",),
    "valid": ("--expiring", "36500d"),
    "ending": ("--expiring", "30d"),
    "expired": ("--expired",),
    "revoked": ("--revoked",),
}
NOW = "now"
_PAGE, _MAX_CHARS = 50, 256
_WEEK = timedelta(days=7)
_LATE = 5
"""A certificate ends soon if less than this fraction (1/5) of its lifetime remains."""


@dataclass(frozen=True, slots=True)
class CertificateFilter:
    """Filter of the certificates; `find` is a device, a thumbprint or a serial number, and excludes other filters."""

    find: str = ""
    week: date | None = None
    """Monday of the week."""
    state: str = ""
    profile: str = ""
    issuer: str = ""
    after: str = ""

    @classmethod
    def of(cls, request: Request, now: datetime) -> "CertificateFilter":
        """Return the filter in a URL. For a week, revoked certificates are excluded by default."""
        given = request.query_params
        week = monday_of(given.get("week", ""), now)
        state = given.get("state", "unrevoked" if week is not None else "")
        texts = {name: given.get(name, "").strip()[:_MAX_CHARS] for name in ("find", "profile", "issuer", "after")}
        return cls(**texts, week=week, state=state if state in STATES else "")

    @property
    def asked(self) -> Mapping[str, str]:
        """The filter's parameters that are set."""
        if self.find:
            return {"find": self.find}
        week = "" if self.week is None else self.week.isoformat()
        every = {"week": week, "state": self.state, "profile": self.profile, "issuer": self.issuer}
        return {name: value for name, value in every.items() if value}

    @property
    def query(self) -> Mapping[str, Any]:
        """The equivalent query of the operator API."""
        ends = {} if self.week is None else dict(zip(("ends_from", "ends_to"), map(_utc, self._days()), strict=True))
        named = {"profile": self.profile, "issuer": self.issuer, "after": self.after}
        return {**_QUERIES.get(self.state, {}), **ends, **{name: value for name, value in named.items() if value}}

    @property
    def command(self) -> str:
        """The equivalent command."""
        words = ["birthmark", "pki", "ls"]
        if self.find:
            return shlex.join([*words, self.find])
        words += _OPTIONS.get(self.state, ())
        if self.week is not None:
            begin, end = self._days()
            words += ["--ends-from", begin.isoformat(), "--ends-to", end.isoformat()]
        words += ["--cert-profile", self.profile] if self.profile else []
        words += ["--issuer", self.issuer] if self.issuer else []
        return shlex.join(words if self.asked else [*words, "--all"])

    def address(self, after: str = "") -> str:
        """Return the URL of a page with this filter."""
        asked = {**self.asked, **({"after": after} if after else {})}
        return f"/certificates?{urlencode(asked)}" if asked else "/certificates"

    def shift_weeks(self, weeks: int) -> "CertificateFilter":
        """Return the same filter for a week that is `weeks` later."""
        return self if self.week is None else replace(self, week=self.week + weeks * _WEEK, after="")

    def _days(self) -> tuple[date, date]:
        begin = self.week or date.min
        return begin, begin + _WEEK


def monday_of(text: str, now: datetime) -> date | None:
    """Return the Monday of the week of a day, `now` for the current week; None for an invalid day."""
    try:
        day = now.astimezone(UTC).date() if text == NOW else date.fromisoformat(text[:_MAX_CHARS])
        found = day - timedelta(days=day.weekday())
        _ = found + 2 * _WEEK, found - _WEEK
    except (ValueError, OverflowError):
        return None
    return found


def describe_state(row: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    """Return the state of a certificate as text, and its style."""
    if row["revoked"] is not None:
        return translate("revoked"), "bad"
    if row["not_after"] is None:
        return translate("of another CA"), "off"
    end = datetime.fromisoformat(row["not_after"])
    if end <= now:
        return translate("expired"), "off"
    if (begin := datetime.fromisoformat(row["not_before"])) > now:
        return translate("not yet valid"), "off"
    is_late = end - now < (end - begin) / _LATE  # automatic renewal is much earlier
    return (translate("expires soon"), "warn") if is_late else (translate("valid"), "")


@dataclass(frozen=True, slots=True)
class CertificatesPage:
    """Pages of the inventory and the CRLs."""

    site: PageRenderer
    clock: Clock

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/certificates", self.show),
            route("/certificates/lists", self.lists),
            route("/certificates/lists/{name}.crl", self.download),
        ]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render a page of the inventory."""
        now = self.clock.now()
        wanted = CertificateFilter.of(request, now)
        if wanted.find:
            found = await self.site.inside.ask(caller, "/certificates", subject=wanted.find)
        else:
            found = await self.site.inside.ask(caller, "/inventory", limit=_PAGE, **wanted.query)
        issuers = await self.site.inside.ask(caller, "/lists")
        values = {
            "filter": wanted,
            "rows": [{**row, "standing": describe_state(row, now)} for row in found.items],
            "following": None if found.next is None else wanted.address(found.next),
            "states": [(name, translate(text)) for name, text in STATES.items()],
            "profiles": sorted(FOR_REQUESTS),
            "issuers": [(one["purpose"] or one["name"], one["issuer"]) for one in issuers.items],
            "weeks": None
            if wanted.week is None
            else (wanted.shift_weeks(-1).address(), wanted.shift_weeks(1).address()),
        }
        return await self.site.draw(request, caller, "certificates.html", values)

    async def lists(self, request: Request, caller: SignedInUser) -> Response:
        """Render how the revocations of each CA are published."""
        found = await self.site.inside.ask(caller, "/lists")
        values = {"rows": found.items, "ocsp_hours": LIFETIME // timedelta(hours=1), "seen_minutes": MAX_AGE_S // 60}
        return await self.site.draw(request, caller, "lists.html", values)

    async def download(self, request: Request, caller: SignedInUser) -> Response:
        """Return a CRL as a file."""
        made = await self.site.inside.ask(caller, "/lists/{name}", request.path_params["name"])
        return self.site.file(made["crl"].encode(), "application/x-pem-file", f"{request.path_params['name']}.crl.pem")


def _utc(day: date) -> str:
    return datetime.combine(day, time(), UTC).isoformat()
