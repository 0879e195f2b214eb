"""Timeline of a device: its lanes, and the items in each."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from birthmark.webconsole import svg
from birthmark.webconsole.event_labels import words_of
from birthmark.webconsole.i18n import dated, exact, number, reader, translate
from birthmark.webconsole.svg import Size, Tone
from birthmark.webconsole.timeline_svg import (
    Item,
    Point,
    TimelineLane,
    TimelineRow,
    TimelineSpan,
    TimelineTexts,
    Unit,
    rows,
    timeline_svg,
)

_TONES = {"": Tone.GOOD, "warn": Tone.WARN, "bad": Tone.BAD}
_RECORD = ("dps.", "iothub.device", "awsiot.thing", "est.", "name.", "device.revoke")
_SKELETONS = {
    Unit.MINUTE: ("Hm", "MMMd Hm"),
    Unit.HOUR: ("Hm", "MMMd Hm"),
    Unit.DAY: ("d", "MMMd"),
    Unit.MONTH: ("MMM", "yMMM"),
    Unit.YEAR: ("y", "y"),
}
_SIZES = (svg.NARROW, svg.WIDE, svg.FULL)


def lanes_of(
    certificates: Sequence[Mapping[str, Any]],
    happened: Sequence[Mapping[str, Any]],
    came: Sequence[Mapping[str, Any]],
    refusals: Sequence[Mapping[str, Any]],
    now: datetime,
) -> Sequence[TimelineLane]:
    """Return the lanes in chronological order: record, certificates, connections, refusals."""
    record = [
        Point(
            _at(row["at"]),
            _short(row),
            _TONES[_kind(row)],
            exact=f"{words_of(row['action'], row['detail'])}: {row['actor']}",
        )
        for row in happened
        if row["action"].startswith(_RECORD)
    ]
    lanes = [
        TimelineLane(translate("registry"), record, several=_several(translate("{n} changes"))),
        TimelineLane(
            translate("certificates"), _certificates(certificates, now), several=_several(translate("{n} certificates"))
        ),
        TimelineLane(translate("connected"), _connections(came), several=_several(translate("{n} connections"))),
        TimelineLane(
            translate("refused"),
            [
                Point(_at(one["at"]), translate("refused"), Tone.BAD, f"/refusals/{one['id']}", one["message"])
                for one in refusals
            ],
            several=_several(translate("{n} refusals")),
        ),
    ]
    return [lane for lane in lanes if lane.items]


def draw(lanes: Sequence[TimelineLane], now: datetime) -> tuple[Markup, Sequence[TimelineRow]]:
    """Return the drawing, and the same data as table rows."""
    words = _words()
    local = now.astimezone(reader.get().zone)

    def one(size: Size) -> str:
        told = {
            "title": translate("Device timeline"),
            "desc": translate("The table below contains the same data."),
        }
        return timeline_svg(lanes, now=local, name=f"life-{size.name}", texts=words, size=size, **told)

    return Markup(svg.for_each(one, _SIZES)), rows(lanes, texts=words)  # noqa: S704 - our SVG, foreign text is escaped


def _words() -> TimelineTexts:
    def tick(timestamp: datetime, unit: Unit, is_first: bool) -> str:  # noqa: FBT001 - callback type
        return " ".join(dated(one, timestamp) for one in _SKELETONS[unit][is_first].split())

    def several(count: int, word: str) -> str:
        return (
            f"{number(count)} \N{MULTIPLICATION SIGN} {word}"
            if word
            else translate("{n} events").format(n=number(count))
        )

    return TimelineTexts(translate("now"), translate("ongoing"), several, exact, tick, translate("No history yet."))


def _certificates(rows_: Sequence[Mapping[str, Any]], now: datetime) -> list[Item]:
    found: list[Item] = []
    for row in rows_:
        if not row.get("not_before") or not row.get("not_after"):
            continue
        begin, end = _at(row["not_before"]), _at(row["not_after"])
        told = f"{row['profile']} {row['thumbprint'][:16]}"
        if row["revoked"]:
            over = min(end, max(begin, _at(row["revoked"])))
            found.append(
                TimelineSpan(
                    begin,
                    over,
                    translate("revoked"),
                    Tone.BAD,
                    exact=f"{told}, {translate('revoked')}: {row['reason']}",
                )
            )
        else:
            found.append(TimelineSpan(begin, end, "", Tone.WARN if end <= now else Tone.GOOD, exact=told))
    return found


def _connections(rows_: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Return the connected periods, from rows that are sorted latest first."""
    found: list[Item] = []
    open_at: dict[str, tuple[datetime, str]] = {}
    for row in reversed(rows_):
        place, at = str(row["detail"].get("place", "")), _at(row["at"])
        if row["action"] == "device.connect":
            begun = open_at.pop(place, None)
            if begun is not None:  # its end is missing: use the next start
                found.append(TimelineSpan(begun[0], at, "", Tone.GOOD, exact=place))
            open_at[place] = (at, place)
        elif row["action"] in {"device.disconnect", "device.lose"}:
            begun = open_at.pop(place, None)
            reason = str(row["detail"].get("reason", ""))
            if begun is not None:
                found.append(TimelineSpan(begun[0], at, "", Tone.GOOD, exact=f"{place}: {reason}"))
            if row["action"] == "device.lose":
                found.append(Point(at, translate("connection lost"), Tone.WARN, exact=f"{place}: {reason}"))
    found += [TimelineSpan(at, None, "", Tone.GOOD, exact=place) for at, place in open_at.values()]
    return found


def _several(text: str) -> Callable[[int], str]:
    return lambda count: text.format(n=number(count))


def _short(row: Mapping[str, Any]) -> str:
    return {
        "dps.register": translate("registered"),
        "dps.enrollment_put": translate("enrolled"),
        "iothub.device_put": translate("added to hub"),
        "awsiot.thing_create": translate("thing created"),
        "device.revoke": translate("revoked"),
        "name.lose": translate("revoked"),
    }.get(row["action"], words_of(row["action"], row["detail"]))


def _kind(row: Mapping[str, Any]) -> str:
    return "bad" if row["action"] in {"device.revoke", "name.lose"} else ""


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
