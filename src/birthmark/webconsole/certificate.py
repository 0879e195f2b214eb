"""A certificate: its content, its owner, and the impact of a revocation, shown before it happens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.ca.revocation import CertificateUnknownError
from birthmark.clock_and_entropy import Clock
from birthmark.errors import NotFoundError
from birthmark.operator_api.certificate_details import MOST_BELOW
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.untrusted_json_and_text import printable
from birthmark.webconsole.certificates import describe_state
from birthmark.webconsole.i18n import count_of, number, translate
from birthmark.webconsole.page_base import PageRenderer

_THUMBPRINT, _MAX_SHOWN = re.compile("[0-9A-Fa-f]{64}"), 64


@dataclass(frozen=True, slots=True)
class RevocationImpact:
    """An object that a revocation affects: the object, the effect, and its style."""

    who: str
    what: str
    link: str = ""
    kind: str = "warn"


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """The page of a certificate."""

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

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the page. Raise `CertificateUnknownError`."""
        told = await self._told(request, caller)
        values = {
            "one": told,
            "standing": describe_state(told, self.clock.now()),
            "replaced": [row for row in await self._others(caller, told) if row["shown"] == told["thumbprint"]],
        }
        return await self.site.draw(request, caller, "certificate.html", values)

    async def download(self, request: Request, caller: SignedInUser) -> Response:
        """Return the certificate as a file."""
        told = await self._told(request, caller)
        return self.site.file(told["pem"].encode(), "application/x-pem-file", f"{told['thumbprint'][:16]}.pem")

    async def preview(self, request: Request, caller: SignedInUser) -> Response:
        """Show the impact, and request a reason."""
        told = await self._told(request, caller)
        values = {
            "one": told,
            "standing": describe_state(told, self.clock.now()),
            "hits": await self._hits(caller, told),
            "reasons": [one.value for one in RevocationReason],
        }
        return await self.site.draw(request, caller, "revoke.html", values)

    async def revoke(self, request: Request, caller: SignedInUser) -> Response:
        """Revoke the certificate, and list everything revoked with it.

        Raise `AlreadyRevokedError` for a repeated request.
        """
        given, thumbprint = await self.site.form(request), request.path_params["thumbprint"]
        reason = given.get("reason") or RevocationReason.UNSPECIFIED.value
        path = "/certificates/{thumbprint}/revoke"
        done = await self.site.do(caller, given, "POST", path, thumbprint, reason=reason)
        text = count_of("{n} certificate was revoked.", "{n} certificates were revoked.", len(done))
        return self.site.go(f"/certificates/{thumbprint}", message=text.format(n=number(len(done))))

    async def _told(self, request: Request, caller: SignedInUser) -> Mapping[str, Any]:
        wanted = request.path_params["thumbprint"]
        if _THUMBPRINT.fullmatch(wanted) is None:
            raise CertificateUnknownError(wanted=printable(wanted)[:_MAX_SHOWN])
        found: Mapping[str, Any] = await self.site.inside.ask(caller, "/certificates/{thumbprint}", wanted)
        return found

    async def _others(self, caller: SignedInUser, values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        found = await self.site.inside.ask(caller, "/certificates", subject=values["device"])
        return [row for row in found.items if row["thumbprint"] != values["thumbprint"]]

    async def _hits(self, caller: SignedInUser, values: Mapping[str, Any]) -> Sequence[RevocationImpact]:
        """Return the impact: device and connections, other certificates of its key, and certificates of a CA."""
        hits = [
            RevocationImpact(values["device"], translate("this certificate becomes permanently invalid"), kind="bad")
        ]
        for one in values["same_key"]:
            words = translate("has the same key and is also revoked, unless the reason is superseded")
            hits.append(RevocationImpact(one["device"], words, f"/certificates/{one['thumbprint']}", "bad"))
        if values["is_ca"]:
            count = number(values["below"]) + ("+" if values["below"] >= MOST_BELOW else "")
            words = translate("{n} certificates issued by this CA are valid: devices that use them are refused").format(
                n=count
            )
            hits.append(
                RevocationImpact(
                    values["subject"], words, f"/certificates?issuer={values['thumbprint']}&state=valid", "bad"
                )
            )
        try:
            parts = await self.site.inside.look(caller, "/devices/{name}", values["device"]) or ()
        except NotFoundError:
            parts = ()
        for part in parts:
            if part["what"] in {"device", "thing"}:
                is_there = "connected since" in part["detail"]
                words = translate("is connected and is disconnected if it uses this certificate")
                words = words if is_there else translate("can no longer connect with this certificate")
                hits.append(
                    RevocationImpact(
                        f"{part['place']} {part['id']}", words, f"/devices/{quote(values['device'], safe='')}"
                    )
                )
        alive = [
            row
            for row in await self._others(caller, values)
            if row["revoked"] is None and row["not_after"] and describe_state(row, self.clock.now())[1] != "off"
        ]
        known = {one["thumbprint"] for one in values["same_key"]}
        for row in alive:
            if row["thumbprint"] not in known:
                words = translate("another certificate of this device remains valid")
                hits.append(RevocationImpact(row["device"], words, f"/certificates/{row['thumbprint']}", "off"))
        return hits
