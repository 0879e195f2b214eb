"""*Jobs*: what things at AWS IoT are told to do; one of them as it goes out: how far, on whom it failed and why."""

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
from birthmark.iam.authorization import RightMissingError
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.webconsole import svg
from birthmark.webconsole.charts.proportion_bars import ProportionBar, lanes
from birthmark.webconsole.i18n import number, say
from birthmark.webconsole.labels import marked
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.svg import Size, Tone

_AT, _ONE = "/jobs", "/jobs/{name}"
_EVERY_S, _SELDOM_S, _MANY = 2, 15, 50_000  # a look counts all of its executions
_PAGE, _SHOWN, _MAX_CHARS = 50, 25, 256
_GOES_ON = frozenset({JobStatus.SCHEDULED.value, JobStatus.IN_PROGRESS.value})
STATES: Mapping[str, tuple[str, str]] = {
    JobStatus.SCHEDULED.value: (marked("is to begin"), "off"),
    JobStatus.IN_PROGRESS.value: (marked("goes on"), ""),
    JobStatus.COMPLETED.value: (marked("is over"), "off"),
    JobStatus.CANCELED.value: (marked("is canceled"), "warn"),
    JobStatus.DELETING.value: (marked("is being removed"), "warn"),
}
"""What a job's status is called, and its look."""
_S = ExecutionStatus
THINGS: Mapping[str, tuple[str, Tone, str]] = {
    _S.QUEUED.value: (marked("not begun"), Tone.USUAL, "off"),
    _S.IN_PROGRESS.value: (marked("begun"), Tone.INFO, ""),
    _S.SUCCEEDED.value: (marked("succeeded"), Tone.GOOD, ""),
    _S.FAILED.value: (marked("failed"), Tone.BAD, "bad"),
    _S.TIMED_OUT.value: (marked("took too long"), Tone.BAD, "bad"),
    _S.REJECTED.value: (marked("refused by the device"), Tone.BAD, "bad"),
    _S.CANCELED.value: (marked("job canceled"), Tone.WARN, "warn"),
    _S.REMOVED.value: (marked("device removed"), Tone.WARN, "warn"),
}
"""What is said of a job on a thing, in the picture and beside it."""
DONE: Mapping[str, str] = {
    "pause": marked("The job goes to no more things until it is resumed."),
    "resume": marked("The job goes to more things again."),
    "cancel": marked("The job is canceled."),
}


@dataclass(frozen=True, slots=True)
class JobsPages:
    """The list, and one of them."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self.site.route(_AT, self.list),
            self.site.route(_ONE, self.show),
            self.site.route(_ONE, self.do, "POST"),
        ]

    async def list(self, request: Request, who: SignedInUser) -> Response:
        """Draw a page of them; what somebody may not look at is said to be another's."""
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        found = await self.site.inside.look(who, "/aws/jobs", limit=_PAGE, after=after or None)
        following = None if found is None or found.next is None else f"{_AT}?{urlencode({'after': found.next})}"
        rows = None if found is None else [{**row, "is": _state(row)} for row in found.items]
        return await self.site.draw(request, who, "jobs.html", {"rows": rows, "following": following})

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw one as it is now. Raise `UnknownJobError`."""
        name, inside = request.path_params["name"], self.site.inside
        row = await inside.ask(who, "/aws/jobs/{name}", name)
        status = request.query_params.get("status", "")
        if status not in THINGS:
            status = ""
        after = request.query_params.get("after", "")[:_MAX_CHARS]
        asked = {"status": status or None, "after": after or None, "limit": _SHOWN}
        things = await inside.ask(who, "/aws/jobs/{name}/executions", name, **asked)
        reasons = await inside.ask(who, "/aws/jobs/{name}/reasons", name)
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
            "status_words": say(THINGS[status][0]) if status else "",
            "again": _at(here, status=status, after=after),
            "following": following,
            "may": _may(self.site, who, name),
            "starts": (row["settings"].get("schedulingConfig") or {}).get("startTime"),
            "ends": (row["settings"].get("schedulingConfig") or {}).get("endTime"),
        }
        return await self.site.draw(request, who, "job.html", values)

    async def do(self, request: Request, who: SignedInUser) -> Response:
        """Pause, resume or cancel one. Raise `JobStateError`."""
        given, name = await self.site.form(request), request.path_params["name"]
        if (deed := given.get("deed", "")) not in DONE:
            raise OperatorRequestError(detail="nothing is to be done")
        body = {"force": given.get("force") == "yes"} if deed == "cancel" else {}
        await self.site.do(who, given, "POST", f"/aws/jobs/{{name}}/{deed}", name, **body)
        return self.site.go(f"{_AT}/{quote(name, safe='')}", said=say(DONE[deed]))


def _may(site: PageRenderer, who: SignedInUser, name: str) -> bool:
    """Say whether somebody may change it."""
    try:
        site.inside.may(who, "POST", "/aws/jobs/{name}/pause", name)
    except RightMissingError:
        return False
    return True


def _at(path: str, **query: str) -> str:
    told = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{told}" if told else path


def _state(row: Mapping[str, Any]) -> tuple[str, str]:
    words, look = STATES[row["status"]]
    if row["paused"] is not None and row["status"] in _GOES_ON:
        return say("is paused"), "warn"
    return say(words), look


def _said(status: str) -> Mapping[str, str]:
    words, _, look = THINGS[status]
    return {"words": say(words), "look": look}


def _counted(status: str, count: int, here: str) -> Mapping[str, Any]:
    return {"status": status, "count": count, "link": _at(here, status=status), **_said(status)}


def drawn(things: Mapping[str, int]) -> Markup:
    """Return the picture: a lane for each state, as long as so many things are in it."""
    total = sum(things.values())
    given: Sequence[ProportionBar] = [
        ProportionBar(
            say(words),
            things[status],
            tone,
            say("{words}: {n} of {total}").format(words=say(words), n=number(things[status]), total=number(total)),
        )
        for status, (words, tone, _) in THINGS.items()
        if status in things
    ]

    def draw(size: Size) -> str:
        return lanes(
            given,
            total=total,
            name="job",
            title=say("How far the job is"),
            desc=say("A lane for each state, as long as the part of the things that are in it."),
            number=number,
            size=size,
        )

    return Markup(svg.for_each(draw, (svg.NARROW, svg.MIDDLE, svg.WIDE)))  # noqa: S704 - drawn by us, and escaped
