"""One certificate: what it says, who it belongs to, and who is hit when it is taken back, before it is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.ca.revocation import CertificateUnknownError
from birthmark.clock import Clock
from birthmark.errors import NotFoundError
from birthmark.operator_api.certificate_details import MOST_BELOW
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.pki.crl import RevocationReason
from birthmark.untrusted_text import printable
from birthmark.webconsole.certificates import standing
from birthmark.webconsole.i18n import count_of, number, say
from birthmark.webconsole.page_base import PageRenderer

_THUMBPRINT, _MAX_SHOWN = re.compile("[0-9A-Fa-f]{64}"), 64


@dataclass(frozen=True, slots=True)
class RevocationImpact:
    """Somebody or something that a revocation would hit: what, what becomes of it, and how that is marked."""

    who: str
    what: str
    link: str = ""
    kind: str = "warn"


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """One certificate."""

    site: PageRenderer
    clock: Clock

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/certificates/{thumbprint}.pem", self.download),
            route("/certificates/{thumbprint}", self.show),
            route("/certificates/{thumbprint}/revoke", self.preview),
            route("/certificates/{thumbprint}/revoke", self.revoke, "POST"),
        ]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw it. Raise `CertificateUnknownError`."""
        told = await self._told(request, who)
        values = {
            "one": told,
            "standing": standing(told, self.clock.now()),
            "replaced": [row for row in await self._others(who, told) if row["shown"] == told["thumbprint"]],
        }
        return await self.site.draw(request, who, "certificate.html", values)

    async def download(self, request: Request, who: SignedInUser) -> Response:
        """Hand it out as a file."""
        told = await self._told(request, who)
        return self.site.file(told["pem"].encode(), "application/x-pem-file", f"{told['thumbprint'][:16]}.pem")

    async def preview(self, request: Request, who: SignedInUser) -> Response:
        """Show who is hit, and ask why."""
        told = await self._told(request, who)
        values = {
            "one": told,
            "standing": standing(told, self.clock.now()),
            "hits": await self._hits(who, told),
            "reasons": [one.value for one in RevocationReason],
        }
        return await self.site.draw(request, who, "revoke.html", values)

    async def revoke(self, request: Request, who: SignedInUser) -> Response:
        """Take it back, and say what was taken back with it. Raise `AlreadyRevokedError` to whoever comes later."""
        given, thumbprint = await self.site.form(request), request.path_params["thumbprint"]
        reason = given.get("reason") or RevocationReason.UNSPECIFIED.value
        path = "/certificates/{thumbprint}/revoke"
        done = await self.site.do(who, given, "POST", path, thumbprint, reason=reason)
        text = count_of("{n} certificate was revoked.", "{n} certificates were revoked.", len(done))
        return self.site.go(f"/certificates/{thumbprint}", said=text.format(n=number(len(done))))

    async def _told(self, request: Request, who: SignedInUser) -> Mapping[str, Any]:
        wanted = request.path_params["thumbprint"]
        if _THUMBPRINT.fullmatch(wanted) is None:
            raise CertificateUnknownError(wanted=printable(wanted)[:_MAX_SHOWN])
        found: Mapping[str, Any] = await self.site.inside.ask(who, "/certificates/{thumbprint}", wanted)
        return found

    async def _others(self, who: SignedInUser, told: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        found = await self.site.inside.ask(who, "/certificates", subject=told["device"])
        return [row for row in found.items if row["thumbprint"] != told["thumbprint"]]

    async def _hits(self, who: SignedInUser, told: Mapping[str, Any]) -> Sequence[RevocationImpact]:
        """Return who is hit: the device and where it is connected, others of its key, what a CA has issued."""
        hits = [RevocationImpact(told["device"], say("this certificate never counts again"), kind="bad")]
        for one in told["same_key"]:
            words = say("has the same key: revoked with it, unless it was only replaced")
            hits.append(RevocationImpact(one["device"], words, f"/certificates/{one['thumbprint']}", "bad"))
        if told["is_ca"]:
            count = number(told["below"]) + ("+" if told["below"] >= MOST_BELOW else "")
            words = say("{n} certificates that it issued are valid: devices with them are refused").format(n=count)
            hits.append(
                RevocationImpact(
                    told["subject"], words, f"/certificates?issuer={told['thumbprint']}&state=valid", "bad"
                )
            )
        try:
            parts = await self.site.inside.look(who, "/devices/{name}", told["device"]) or ()
        except NotFoundError:
            parts = ()
        for part in parts:
            if part["what"] in {"device", "thing"}:
                is_there = "connected since" in part["detail"]
                words = say("is connected now: its connection ends if it came by this certificate")
                words = words if is_there else say("cannot connect by this certificate again")
                hits.append(
                    RevocationImpact(
                        f"{part['place']} {part['id']}", words, f"/devices/{quote(told['device'], safe='')}"
                    )
                )
        alive = [
            row
            for row in await self._others(who, told)
            if row["revoked"] is None and row["not_after"] and standing(row, self.clock.now())[1] != "off"
        ]
        known = {one["thumbprint"] for one in told["same_key"]}
        for row in alive:
            if row["thumbprint"] not in known:
                words = say("another certificate of this device stays good")
                hits.append(RevocationImpact(row["device"], words, f"/certificates/{row['thumbprint']}", "off"))
        return hits
