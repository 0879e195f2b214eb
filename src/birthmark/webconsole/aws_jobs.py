"""*Jobs*: AWS IoT jobs of things; for each its progress, failures and their reasons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.awsiot.model import ExecutionStatus, JobStatus
from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole import svg
from birthmark.webconsole.charts.horizontal_share_bars import ProportionBar, lanes
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import number, translate
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.svg import Size, Tone

_AT, _ONE = "/jobs", "/jobs/{name}"
_EVERY_S, _SELDOM_S, _MANY = 2, 15, 50_000  # each update counts all executions
_PAGE, _SHOWN, _MAX_CHARS = 50, 25, 256
_GOES_ON = frozenset({JobStatus.SCHEDULED.value, JobStatus.IN_PROGRESS.value})
STATES: Mapping[str, tuple[str, str]] = {
    JobStatus.SCHEDULED.value: (mark_for_translation("scheduled"), "off"),
    JobStatus.IN_PROGRESS.value: (mark_for_translation("in progress"), ""),
    JobStatus.COMPLETED.value: (mark_for_translation("completed"), "off"),
    JobStatus.CANCELED.value: (mark_for_translation("canceled"), "warn"),
    JobStatus.DELETING.value: (mark_for_translation("deletion in progress"), "warn"),
}
"""Name and style of each job status."""
_S = ExecutionStatus
THINGS: Mapping[str, tuple[str, Tone, str]] = {
    _S.QUEUED.value: (mark_for_translation("queued"), Tone.USUAL, "off"),
    _S.IN_PROGRESS.value: (mark_for_translation("started"), Tone.INFO, ""),
    _S.SUCCEEDED.value: (mark_for_translation("succeeded"), Tone.GOOD, ""),
    _S.FAILED.value: (mark_for_translation("failed"), Tone.BAD, "bad"),
    _S.TIMED_OUT.value: (mark_for_translation("timed out"), Tone.BAD, "bad"),
    _S.REJECTED.value: (mark_for_translation("rejected by the device"), Tone.BAD, "bad"),
    _S.CANCELED.value: (mark_for_translation("job canceled"), Tone.WARN, "warn"),
    _S.REMOVED.value: (mark_for_translation("device removed"), Tone.WARN, "warn"),
}
"""Label and style of a job's state on a thing, in the chart and its table."""
DONE: Mapping[str, str] = {
    "pause": mark_for_translation("The job is paused. No new executions start until you resume it."),
    "resume": mark_for_translation("The job is resumed."),
    "cancel": mark_for_translation("The job is canceled."),
}


@dataclass(frozen=True, slots=True)
class JobsPages:
    """The list of jobs, and the page of a job."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self.site.route(_AT, self.list),
            self.site.route(_ONE, self.show),
            self.site.route(_ONE, self.do, "POST"),
        ]

    async def list(self, request: Request, caller: SignedInUser) -> Response:
        """Render a page of jobs; without permission, show a notice."""
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        found = await self.site.inside.look(caller, "/aws/jobs", limit=_PAGE, after=after or None)
        following = None if found is None or found.next is None else f"{_AT}?{urlencode({'after': found.next})}"
        rows = None if found is None else [{**row, "is": _state(row)} for row in found.items]
        return await self.site.draw(request, caller, "jobs.html", {"rows": rows, "following": following})

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the current state of a job. Raise `UnknownJobError`."""
        name, inside = request.path_params["name"], self.site.inside
        row = await inside.ask(caller, "/aws/jobs/{name}", name)
        status = request.query_params.get("status", "")
        if status not in THINGS:
            status = ""
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        asked = {"status": status or None, "after": after or None, "limit": _SHOWN}
        things = await inside.ask(caller, "/aws/jobs/{name}/executions", name, **asked)
        reasons = await inside.ask(caller, "/aws/jobs/{name}/reasons", name)
        here = f"{_AT}/{quote(name, safe='')}"
        following = None if things.next is None else _at(here, status=status, after=things.next)
        total = sum(row["things"].values())
        values = {
            "row": row,
            "document": json.dumps(row["document"], ensure_ascii=False),
            "here": here,
            "is": _state(row),
            "goes_on": row["status"] in _GOES_ON,
            "total": total,
            "every": _EVERY_S if total <= _MANY else _SELDOM_S,
            "over": total - sum(row["things"].get(one, 0) for one in ("QUEUED", "IN_PROGRESS")),
            "picture": drawn(row["things"]) if total else "",
            "counted": [_counted(one, row["things"][one], here) for one in THINGS if one in row["things"]],
            "things": [{**one, **_said(one["status"])} for one in things.items],
            "reasons": [{**one, **_said(one["status"])} for one in reasons.items],
            "status": status,
            "status_words": translate(THINGS[status][0]) if status else "",
            "again": _at(here, status=status, after=after),
            "following": following,
            "may": _may(self.site, caller, name),
            "starts": (row["settings"].get("schedulingConfig") or {}).get("startTime"),
            "ends": (row["settings"].get("schedulingConfig") or {}).get("endTime"),
        }
        return await self.site.draw(request, caller, "job.html", values)

    async def do(self, request: Request, caller: SignedInUser) -> Response:
        """Pause, resume or cancel a job. Raise `JobStateError`."""
        given, name = await self.site.form(request), request.path_params["name"]
        if (deed := given.get("deed", "")) not in DONE:
            raise OperatorRequestError(detail="nothing is to be done")
        body = {"force": given.get("force") == "yes"} if deed == "cancel" else {}
        await self.site.do(caller, given, "POST", f"/aws/jobs/{{name}}/{deed}", name, **body)
        return self.site.go(f"{_AT}/{quote(name, safe='')}", message=translate(DONE[deed]))


def _may(site: PageRenderer, caller: SignedInUser, name: str) -> bool:
    """Return whether the user may change the job."""
    try:
        site.inside.may(caller, "POST", "/aws/jobs/{name}/pause", name)
    except RightMissingError:
        return False
    return True


def _at(path: str, **query: str) -> str:
    told = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{told}" if told else path


def _state(row: Mapping[str, Any]) -> tuple[str, str]:
    words, look = STATES[row["status"]]
    if row["paused"] is not None and row["status"] in _GOES_ON:
        return translate("paused"), "warn"
    return translate(words), look


def _said(status: str) -> Mapping[str, str]:
    words, _, look = THINGS[status]
    return {"words": translate(words), "look": look}


def _counted(status: str, count: int, here: str) -> Mapping[str, Any]:
    return {"status": status, "count": count, "link": _at(here, status=status), **_said(status)}


def drawn(things: Mapping[str, int]) -> Markup:
    """Return the chart: a lane for each state, whose length is its number of things."""
    total = sum(things.values())
    given: Sequence[ProportionBar] = [
        ProportionBar(
            translate(words),
            things[status],
            tone,
            translate("{words}: {n} of {total}").format(
                words=translate(words), n=number(things[status]), total=number(total)
            ),
        )
        for status, (words, tone, _) in THINGS.items()
        if status in things
    ]

    def draw(size: Size) -> str:
        return lanes(
            given,
            total=total,
            name="job",
            title=translate("Job progress"),
            desc=translate("One bar per state, proportional to its share of the things."),
            number=number,
            size=size,
        )

    return Markup(svg.for_each(draw, (svg.NARROW, svg.MIDDLE, svg.WIDE)))  # noqa: S704 - our SVG, escaped
