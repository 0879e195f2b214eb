"""*Today*: what there is, what ends soon, who was refused and why, what waits for a decision, what changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.clock import Clock
from birthmark.console.inside import Person
from birthmark.console.web.site import Site

_HOURS, _WEEKS = 48, 53
_HOUR, _WEEK = timedelta(hours=1), timedelta(days=7)
_CHANGES, _REASONS = 8, 6
CERTIFICATES, REFUSALS, REGISTRATIONS, RENEWALS = "certificates", "refusals", "registrations", "renewals"


@dataclass(frozen=True, slots=True)
class TodayPage:
    """The first page."""

    site: Site
    clock: Clock

    def routes(self) -> list[Route]:
        """Return its route."""
        return [self.site.route("/", self.show)]

    async def show(self, request: Request, who: Person) -> Response:
        """Draw it, as far as who looks may see."""
        look, now = self.site.inside.look, self.clock.now()
        figures = await look(who, "/figures", back_s=_HOURS * 3600)
        values: dict[str, Any] = {"hours": None, "weeks": None}
        if figures:
            values["hours"] = per_hour(figures.items, now)
            values["weeks"] = per_week(figures.items, now)
        values["waits"] = await self._waits(who)
        return await self.site.draw(request, who, "today.html", values)

    async def _waits(self, who: Person) -> Mapping[str, Any]:
        look = self.site.inside.look
        approvals, alerts = await look(who, "/people/approvals"), await look(who, "/alerts")
        requests, rollover = await look(who, "/est/requests"), await look(who, "/ca/rollover")
        return {
            "approvals": [] if approvals is None else approvals.items,
            "alerts": [] if alerts is None else [one for one in alerts.items if not one["silenced"]],
            "requests": [] if requests is None else requests.items,
            "rollover": rollover,
        }


def per_hour(rows: Sequence[Mapping[str, Any]], now: datetime) -> Mapping[str, Sequence[int]]:
    """Return how many renewals, registrations and refusals there were in each of the last hours, this one the last."""
    begin = now.replace(minute=0, second=0, microsecond=0) - (_HOURS - 1) * _HOUR
    found: dict[str, list[int]] = {name: [0] * _HOURS for name in (RENEWALS, REGISTRATIONS, REFUSALS)}
    for row in rows:
        if row["what"] in found and row["since"]:
            at = (datetime.fromisoformat(row["since"]) - begin) // _HOUR
            if 0 <= at < _HOURS:
                found[row["what"]][at] += row["count"]
    return found


def per_week(rows: Sequence[Mapping[str, Any]], now: datetime) -> Sequence[int]:
    """Return how many certificates end in this week and each of those that follow."""
    counted: Counter[int] = Counter()
    monday = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())
    for row in rows:
        if row["what"] == CERTIFICATES and row["state"] == "valid" and row["since"]:
            counted[(datetime.fromisoformat(row["since"]) - monday) // _WEEK] += row["count"]
    return [counted[week] for week in range(_WEEKS)]
