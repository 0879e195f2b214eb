"""*Events and alerts*: active alerts and their fixes, silences, rules, past events, and recipients."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.events.event_types import type_of
from birthmark.iam.model import SERVER
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.page_api_client import ApiOperation, SignedInUser
from birthmark.operator_api.sign_in_handler_base import Form
from birthmark.webconsole.event_labels import kind_of, mark_for_translation, words_of
from birthmark.webconsole.i18n import count_of, number, translate
from birthmark.webconsole.page_base import ONCE, PageRenderer

PATH = "/alerts"
LIFETIMES: Mapping[str, tuple[int, str]] = {
    "1h": (3600, mark_for_translation("1 hour")),
    "4h": (4 * 3600, mark_for_translation("4 hours")),
    "1d": (86_400, mark_for_translation("1 day")),
    "7d": (7 * 86_400, mark_for_translation("7 days")),
}
_EVENTS, _PUT_ASIDE = 20, 5


@dataclass(frozen=True, slots=True)
class AlertsPage:
    """Alerts, events and webhooks."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route(PATH, self.show),
            route(f"{PATH}/silence", self.silence, "POST"),
            route(f"{PATH}/unsilence", self.unsilence, "POST"),
            route(f"{PATH}/webhook", self.steer, "POST"),
        ]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the page."""
        ask, rights = self.site.inside.ask, caller.caller.rights
        alerts, rules = await ask(caller, "/alerts"), await ask(caller, "/alerts/rules")
        silences, latest = await ask(caller, "/alerts/silences"), await ask(caller, "/audit/latest", limit=_EVENTS)
        values = {
            "alerts": sorted(alerts.items, key=lambda one: (one["silenced"], one["severity"] != "critical")),
            "rules": rules.items,
            "silences": silences.items,
            "events": [event(row) for row in latest.items],
            "webhooks": await self._webhooks(caller),
            "lifetimes": [(name, translate(text)) for name, (_, text) in LIFETIMES.items()],
            "may_silence": rights.allow(Right.OPERATE, SERVER),
            "may_steer": rights.allow(Right.ADMINISTER, SERVER),
            "quoted": shlex.quote,
        }
        return await self.site.draw(request, caller, "alerts.html", values)

    async def _webhooks(self, caller: SignedInUser) -> Sequence[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for one in (await self.site.inside.ask(caller, "/webhooks")).items:
            dead = (await self.site.inside.ask(caller, "/webhooks/{name}/dead", one["name"])).items
            aside = {"aside": sum(row["events"] for row in dead), "dead": dead[:_PUT_ASIDE]}
            found.append({**one, **aside, "words": words_of_types(one["types"])})
        return found

    async def silence(self, request: Request, caller: SignedInUser) -> Response:
        """Silence an alert, or all alerts of its rule, for a duration."""
        given = await self.site.form(request)
        if (lifetime := LIFETIMES.get(given.get("lifetime", ""))) is None:
            raise OperatorRequestError(detail="for how long?")
        subject = "*" if given.get("all") else given.get("subject", "") or "*"
        body = {"rule": given.get("rule", ""), "subject": subject, "reason": given.get("reason", "").strip()}
        await self.site.do(caller, given, "POST", "/alerts/silences", **body, lifetime_s=lifetime[0])
        said = translate("{rule} is silenced for {time}.")
        return self.site.go(PATH, message=said.format(rule=body["rule"], time=translate(lifetime[1])))

    async def unsilence(self, request: Request, caller: SignedInUser) -> Response:
        """Remove a silence."""
        given = await self.site.form(request)
        rule, query = given.get("rule", ""), {"subject": given.get("subject", "")}
        deed = ApiOperation("DELETE", "/alerts/silences/{rule}", (rule,), query=query, key=given.get(ONCE, ""))
        await self.site.inside.do(caller, deed)
        return self.site.go(PATH, message=translate("{rule} is no longer silenced.").format(rule=rule))

    async def steer(self, request: Request, caller: SignedInUser) -> Response:
        """Pause or resume a webhook, or resend its dead letters."""
        given = await self.site.form(request)
        return self.site.go(
            PATH, message=await self._steered(caller, given, given.get("name", ""), given.get("deed", ""))
        )

    async def _steered(self, caller: SignedInUser, form: Form, name: str, deed: str) -> str:
        if deed == "replay":
            told = await self.site.do(caller, form, "POST", "/webhooks/{name}/replay", name)
            many = count_of("{n} event is being resent.", "{n} events are being resent.", told["events"])
            return many.format(n=number(told["events"]))
        if deed not in {"pause", "resume"}:
            raise OperatorRequestError(detail="nothing is to be done")
        await self.site.do(caller, form, "PATCH", "/webhooks/{name}", name, paused=deed == "pause")
        said = translate("{name} is paused. Events are queued.") if deed == "pause" else ""
        return (said or translate("{name} is resumed.")).format(name=name)


def event(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an audit row as an event with its description."""
    words, kind = words_of(row["action"], row["detail"]), kind_of(row["action"])
    return {**row, "words": words, "kind": kind, "type": type_of(row["action"], row["detail"])}


def words_of_types(types: Sequence[str]) -> str:
    """Return a description of the subscribed event types."""
    return translate("everything") if set(types) <= {"*"} else ", ".join(types)
