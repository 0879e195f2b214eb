"""*Today*: totals, upcoming expiries, refusals with reasons, pending decisions, and recent changes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.audit.queries import is_person
from birthmark.clock_and_entropy import Clock
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.webconsole import svg
from birthmark.webconsole.charts import Bar, BarKind, Series, Tick, bars, lines, midnights, months
from birthmark.webconsole.event_labels import kind_of, words_of
from birthmark.webconsole.i18n import PageLocale, dated, day, number, reader, translate
from birthmark.webconsole.page_base import PageRenderer
from birthmark.webconsole.refusals import localized_reason
from birthmark.webconsole.svg import Size, Tone

_HOURS, _WEEKS = 48, 53
_HOUR, _WEEK = timedelta(hours=1), timedelta(days=7)
_CHANGES, _REASONS = 8, 5
_LOOKED = 100
"""Number of audit rows in which changes by devices are counted."""
_DAY_S = 86_400
_DRAWN = 32
"""Number of cached charts, per language and time zone, until the data changes."""
CERTIFICATES, REFUSALS, REGISTRATIONS, RENEWALS = "certificates", "refusals", "registrations", "renewals"
_RESTING = frozenset({"one root", "the new alone"})
_NOBODY = frozenset({"people.sign_in", "people.session_end"})
"""Actions that change nothing."""


@dataclass(frozen=True, slots=True)
class TodayPage:
    """Page *Today*, the first page."""

    site: PageRenderer
    clock: Clock

    def routes(self) -> list[Route]:
        """Return the route of the page."""
        return [self.site.route("/", self.show)]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the page with the data that the user may read."""
        look, now = self.site.inside.look, self.clock.now()
        figures = await look(caller, "/figures", back_s=_HOURS * 3600)
        reasons = await look(caller, "/refusals/reasons", back_s=_DAY_S)
        people = await look(caller, "/audit/latest", limit=4 * _CHANGES, people="true")
        latest = await look(caller, "/audit/latest", limit=_LOOKED, back_s=_DAY_S)
        places = await look(caller, "/figures/devices")
        values: dict[str, Any] = {
            "places": [] if places is None else places.items,
            "totals": totals(() if places is None else places.items),
            "reasons": None if reasons is None else [localized_reason(one) for one in reasons.items[:_REASONS]],
            "refused": 0 if reasons is None else sum(one["count"] for one in reasons.items),
            "kinds": 0 if reasons is None else len(reasons.items),
            "new": 0 if reasons is None else sum(1 for one in reasons.items if one["is_new"]),
            "changes": None if people is None else changes(people.items),
            "machines": [] if latest is None else machines(latest.items),
            "looked": _LOOKED,
            "weeks": None,
            **(await self._waits(caller)),
        }
        if figures:
            weeks, hours = per_week(figures.items, now), per_hour(figures.items, now)
            values |= {"weeks": weeks_of(weeks, now), "hours": hours_of(hours, now), "counted": weeks}
            values["chart_weeks"] = draw_weeks(tuple(weeks), _monday(now), reader.get())
            each = tuple((name, tuple(counts)) for name, counts in hours.items())
            values["chart_hours"] = draw_hours(each, _first_hour(now), reader.get())
        return await self.site.draw(request, caller, "today.html", values)

    async def _waits(self, caller: SignedInUser) -> Mapping[str, Any]:
        look = self.site.inside.look
        approvals, alerts = await look(caller, "/people/approvals"), await look(caller, "/alerts")
        requests, rollover = await look(caller, "/est/requests"), await look(caller, "/ca/rollover", measured=False)
        return {
            "approvals": [] if approvals is None else approvals.items,
            "alerts": [] if alerts is None else [one for one in alerts.items if not one["silenced"]],
            "requests": [] if requests is None else [one for one in requests.items if one["stands"] == "waiting"],
            "rollover": rollover if rollover and rollover["state"] not in _RESTING else None,
        }


def totals(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int | None]:
    """Return the totals over all places, of the known values."""
    found: dict[str, int | None] = {}
    for name in ("on_record", "connected", "disabled", "unassigned"):
        known = [row[name] for row in rows if row.get(name) is not None]
        found[name] = sum(known) if known else None
    return found


def changes(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return changes as text; a few identical consecutive ones by the same user are one line."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if row["action"] in _NOBODY:
            continue
        words = words_of(row["action"], row["detail"])
        if found and (found[-1]["who"], found[-1]["words"]) == (row["actor"], words):
            found[-1]["count"] += 1
            continue
        told = {"at": row["at"], "who": row["actor"], "words": words, "subject": row["subject"], "count": 1}
        found.append({**told, "kind": kind_of(row["action"])})
    return found[:_CHANGES]


def machines(rows: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, int]]:
    """Return the actions of devices and programs as text, with their counts."""
    every = (row for row in rows if not is_person(row["actor"]) and row["action"] not in _NOBODY)
    return Counter(words_of(row["action"], row["detail"]) for row in every).most_common(_REASONS)


def per_hour(rows: Sequence[Mapping[str, Any]], now: datetime) -> Mapping[str, Sequence[int]]:
    """Return the renewals, registrations and refusals of each recent hour, the current one last."""
    begin = _first_hour(now)
    found: dict[str, list[int]] = {name: [0] * _HOURS for name in (RENEWALS, REGISTRATIONS, REFUSALS)}
    for row in rows:
        if row["what"] in found and row["since"]:
            at = (datetime.fromisoformat(row["since"]) - begin) // _HOUR
            if 0 <= at < _HOURS:
                found[row["what"]][at] += row["count"]
    return found


def per_week(rows: Sequence[Mapping[str, Any]], now: datetime) -> Sequence[int]:
    """Return the number of certificates that expire in this week and each following one."""
    counted: Counter[int] = Counter()
    for row in rows:
        if row["what"] == CERTIFICATES and row["state"] == "valid" and row["since"]:
            counted[(datetime.fromisoformat(row["since"]) - _monday(now)) // _WEEK] += row["count"]
    return [counted[week] for week in range(_WEEKS)]


def _first_hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0) - (_HOURS - 1) * _HOUR


def _monday(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())


def week_words(index: int, monday: datetime) -> str:
    """Return the name of a week."""
    if index == 0:
        return translate("this week")
    begin = monday + index * _WEEK
    return translate("week of {day}").format(day=dated("yMMMd", begin) if begin.year != monday.year else day(begin))


def ending_address(index: int, monday: datetime) -> str:
    """Return the URL of the certificates that expire in a week."""
    begin = (monday + index * _WEEK).date().isoformat()
    return f"/certificates?{urlencode({'week': begin})}"


def weeks_of(weeks: Sequence[int], now: datetime) -> Sequence[Mapping[str, Any]]:
    """Return the table rows of the chart: the weeks with expiries."""
    monday = _monday(now)
    return [
        {"words": week_words(index, monday), "count": count, "link": ending_address(index, monday)}
        for index, count in enumerate(weeks)
        if count
    ]


def hours_of(hours: Mapping[str, Sequence[int]], now: datetime) -> Sequence[Mapping[str, Any]]:
    """Return the table rows of the chart, latest first, without empty hours."""
    first = _first_hour(now)
    rows = [
        {"at": first + index * _HOUR, **{name: values[index] for name, values in hours.items()}}
        for index in range(_HOURS)
    ]
    return [row for row in reversed(rows) if any(row[name] for name in hours)]


@lru_cache(maxsize=_DRAWN)
def draw_weeks(weeks: Sequence[int], monday: datetime, locale: PageLocale) -> Markup:
    """Return the chart of expiries for a locale."""
    given = [
        Bar(
            count,
            translate("{n} certificates expire, {week}").format(n=number(count), week=week_words(index, monday)),
            BarKind.NOW if index == 0 else BarKind.LATE if index == 1 else BarKind.USUAL,
            ending_address(index, monday) if count else None,
            translate("Data for this week is incomplete.") if index == 0 else "",
        )
        for index, count in enumerate(weeks)
    ]
    ticks = [
        Tick(at, dated("yMMM" if first.month == 1 else "MMM", _noon(first, locale)), is_major=first.month == 1)
        for at, first in months(monday.date(), _WEEKS)
    ]

    def draw(size: Size) -> str:
        return bars(
            given,
            name=f"weeks-{size.name}",
            title=translate("Certificates by week of expiry"),
            desc=translate("One bar per week, starting with the current week."),
            unit=translate("certificates"),
            number=number,
            size=size,
            ticks=ticks,
            kinds={BarKind.NOW: translate("this week"), BarKind.LATE: translate("next week")},
            empty=translate("No certificate of this server expires within a year."),
        )

    return Markup(svg.for_each(draw, (svg.NARROW, svg.MIDDLE, svg.WIDE)))  # noqa: S704 - our SVG, escaped


def _noon(day: date, locale: PageLocale) -> datetime:
    """Return noon of a day, so that no time zone changes the displayed day."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=locale.zone)


@lru_cache(maxsize=_DRAWN)
def draw_hours(counted: Sequence[tuple[str, Sequence[int]]], since: datetime, locale: PageLocale) -> Markup:
    """Return the chart of the hours from `since` on for a locale."""
    hours, first, unit = dict(counted), since.astimezone(locale.zone), translate("per hour")
    latest = translate("{n} this hour")
    marks = [Tick(at, dated("EEE", when), is_major=True) for at, when in midnights(first, _HOURS)]
    series = [
        Series(translate("renewals"), unit, hours[RENEWALS], Tone.GOOD, latest),
        Series(translate("registrations"), unit, hours[REGISTRATIONS], Tone.INFO, latest),
        Series(translate("refusals"), unit, hours[REFUSALS], Tone.BAD, latest),
    ]
    words = [
        dated("EEEHm", first + index * _HOUR)
        + "".join(f"; {one.label}: {number(one.values[index] or 0)}" for one in series)
        for index in range(_HOURS)
    ]

    def draw(size: Size) -> str:
        return lines(
            series,
            name=f"hours-{size.name}",
            title=translate("Renewals, registrations and refusals per hour"),
            desc=translate("Hourly values for the last 2 days."),
            number=number,
            size=size,
            ticks=marks,
            words=words,
            unfinished=translate("data for this hour is incomplete"),
            empty=translate("No data yet."),
        )

    return Markup(svg.for_each(draw, (svg.NARROW, svg.MIDDLE, svg.WIDE)))  # noqa: S704 - our SVG, escaped
