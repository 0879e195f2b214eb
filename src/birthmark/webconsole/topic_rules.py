"""*Rules*: AWS IoT rules with their actions; for each its sent, waiting and failed messages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole import svg
from birthmark.webconsole.charts.horizontal_share_bars import ProportionBar, lanes
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import number, translate
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.svg import Size, Tone

_AT, _ONE = "/rules", "/rules/{name}"
_PAGE, _SHOWN, _MAX_CHARS = 50, 25, 256
OUTCOMES: Mapping[str, tuple[str, Tone]] = {
    "sent": (mark_for_translation("sent"), Tone.GOOD),
    "waiting": (mark_for_translation("waiting for its receiver"), Tone.WARN),
    "dead": (mark_for_translation("dead-lettered"), Tone.BAD),
    "dropped": (mark_for_translation("dropped: no space"), Tone.BAD),
}
"""Label and style of each result of a rule action, in the chart and its table."""
DONE: Mapping[str, str] = {
    "enable": mark_for_translation("The rule is enabled."),
    "disable": mark_for_translation("The rule is disabled."),
    "replay": mark_for_translation("The dead letters are being resent."),
}


@dataclass(frozen=True, slots=True)
class RulesPages:
    """The list of rules, and the page of a rule."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self.site.route(_AT, self.list),
            self.site.route(_ONE, self.show),
            self.site.route(_ONE, self.do, "POST"),
        ]

    async def list(self, request: Request, caller: SignedInUser) -> Response:
        """Render a page of rules; without permission, show a notice."""
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        found = await self.site.inside.look(caller, "/aws/rules", limit=_PAGE, after=after or None)
        following = None if found is None or found.next is None else f"{_AT}?{urlencode({'after': found.next})}"
        rows = None if found is None else [{**row, "is": _state(row)} for row in found.items]
        return await self.site.draw(request, caller, "rules.html", {"rows": rows, "following": following})

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the current state of a rule. Raise `UnknownRuleError`."""
        name, inside = request.path_params["name"], self.site.inside
        row = await inside.ask(caller, "/aws/rules/{name}", name)
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        dead = await inside.ask(caller, "/aws/rules/{name}/dead", name, limit=_SHOWN, after=after or None)
        here = f"{_AT}/{quote(name, safe='')}"
        sums = {outcome: sum(one[outcome] for one in row["actions"]) for outcome in OUTCOMES}
        values = {
            "row": row,
            "here": here,
            "is": _state(row),
            "again": here if not after else f"{here}?{urlencode({'after': after})}",
            "total": sum(sums.values()),
            "picture": drawn(sums) if sum(sums.values()) else "",
            "outcomes": [(translate(words), outcome) for outcome, (words, _) in OUTCOMES.items()],
            "dead": dead.items,
            "following": None if dead.next is None else f"{here}?{urlencode({'after': dead.next})}",
            "payload": json.dumps(row["payload"], ensure_ascii=False, indent=2),
            "may": _may(self.site, caller, name, "enable"),
            "may_replay": _may(self.site, caller, name, "replay"),
        }
        return await self.site.draw(request, caller, "rule.html", values)

    async def do(self, request: Request, caller: SignedInUser) -> Response:
        """Enable or disable a rule, or resend its dead letters."""
        given, name = await self.site.form(request), request.path_params["name"]
        if (deed := given.get("deed", "")) not in DONE:
            raise OperatorRequestError(detail="nothing is to be done")
        await self.site.do(caller, given, "POST", f"/aws/rules/{{name}}/{deed}", name)
        return self.site.go(f"{_AT}/{quote(name, safe='')}", message=translate(DONE[deed]))


def _may(site: PageRenderer, caller: SignedInUser, name: str, deed: str) -> bool:
    """Return whether the user may perform this action on the rule."""
    try:
        site.inside.may(caller, "POST", f"/aws/rules/{{name}}/{deed}", name)
    except RightMissingError:
        return False
    return True


def _state(row: Mapping[str, Any]) -> tuple[str, str]:
    if not row["enabled"]:
        return translate("disabled"), "off"
    if row["dead"]:
        return translate("has dead letters"), "bad"
    if row["waiting"]:
        return translate("waiting for a receiver"), "warn"
    return translate("enabled"), ""


def drawn(sums: Mapping[str, int]) -> Markup:
    """Return the chart: a bar for each outcome, proportional to its share."""
    total = sum(sums.values())
    given: Sequence[ProportionBar] = [
        ProportionBar(
            translate(words),
            sums[outcome],
            tone,
            translate("{words}: {n} of {total}").format(
                words=translate(words), n=number(sums[outcome]), total=number(total)
            ),
        )
        for outcome, (words, tone) in OUTCOMES.items()
        if sums[outcome]
    ]

    def draw(size: Size) -> str:
        return lanes(
            given,
            total=total,
            name="rule",
            title=translate("Results of the rule's actions"),
            desc=translate("One bar per outcome, proportional to its share."),
            number=number,
            size=size,
        )

    return Markup(svg.for_each(draw, (svg.NARROW, svg.MIDDLE, svg.WIDE)))  # noqa: S704 - our SVG, escaped
