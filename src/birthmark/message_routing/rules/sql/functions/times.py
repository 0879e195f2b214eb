"""Time functions (developer guide, parse_time and time_to_epoch), in English and the Gregorian calendar only.

`parse_time` formats with Joda-Time letters; `time_to_epoch` parses with those of java.time. Times are milliseconds
since 1970 UTC.
"""

import re
from calendar import day_abbr, day_name, month_abbr, month_name
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import NEW, SqlFunction
from birthmark.message_routing.rules.sql.values import UNDEFINED, Undefined, Value, int_of, text_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_PATTERN_CHARS, _MAX_TEXT_CHARS, _MAX_ZONE_CHARS = 128, 256, 64
_STEPS = 1000
_FULL = 4  # this many equal characters mean the full name
_PART = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+", re.DOTALL)
_ZONE = re.compile(r"(?:UTC|GMT|UT)?([+-])([0-9]{1,2}):?([0-9]{2})?\Z")
_NAMED_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(?:/[A-Za-z0-9_+\-]+)*\Z")
_AMERICAN: Mapping[str, int] = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_MONTHS = {name.lower(): at for names in (month_abbr, month_name) for at, name in enumerate(names) if name}


def _zone(name: str) -> tzinfo | None:
    if len(name) > _MAX_ZONE_CHARS:
        return None
    if name in {"UTC", "GMT", "UT", "Z"}:
        return UTC
    if name in _AMERICAN:
        return timezone(timedelta(hours=_AMERICAN[name]), name)
    try:
        if (offset := _ZONE.match(name)) is not None:
            sign, hours, minutes = offset.groups()
            ahead = timedelta(hours=int(hours), minutes=int(minutes or 0))
            return timezone(ahead if sign == "+" else -ahead)
        return ZoneInfo(name) if _NAMED_ZONE.match(name) else None
    except (KeyError, ValueError, OSError):
        return None


def _parts(pattern: str) -> Iterator[tuple[str, str]] | None:
    """Return the parts of a pattern: a letter with its run, or an empty text with a literal. None if it is invalid."""
    made: list[tuple[str, str]] = []
    at = 0
    while at < len(pattern):
        part = _PART.match(pattern, at)
        if part is None or part.end() == at:
            return None
        if part.group(1) is not None:
            made.append(("", part.group(1).replace("''", "'") or "'"))
        elif part.group(2) is not None:
            made.append((part.group(2), part.group()))
        else:
            made.append(("", part.group()))
        at = part.end()
    return iter(made)


def _offset(moment: datetime, *, colon: bool) -> str:
    text = moment.strftime("%z")
    return f"{text[:3]}:{text[3:5]}" if colon else text[:5]


def _digits(value: int, run: str) -> str:
    return str(value).zfill(len(run))


def _year(value: int, run: str) -> str:
    return f"{value % 100:02d}" if len(run) == len("yy") else _digits(value, run)


_WRITERS: Mapping[str, Callable[[datetime, str], str]] = {
    "G": lambda _moment, _run: "AD",
    "C": lambda moment, run: _digits(moment.year // 100, run),
    "Y": lambda moment, run: _year(moment.year, run),
    "y": lambda moment, run: _year(moment.year, run),
    "x": lambda moment, run: _year(moment.isocalendar().year, run),
    "w": lambda moment, run: _digits(moment.isocalendar().week, run),
    "e": lambda moment, run: _digits(moment.isoweekday(), run),
    "E": lambda moment, run: (day_name if len(run) >= _FULL else day_abbr)[moment.weekday()],
    "D": lambda moment, run: _digits(moment.timetuple().tm_yday, run),
    "M": lambda moment, run: (
        month_name[moment.month]
        if len(run) >= _FULL
        else month_abbr[moment.month]
        if len(run) == len("MMM")
        else _digits(moment.month, run)
    ),
    "d": lambda moment, run: _digits(moment.day, run),
    "a": lambda moment, _run: "AM" if moment.hour < 12 else "PM",  # noqa: PLR2004 - noon
    "K": lambda moment, run: _digits(moment.hour % 12, run),
    "h": lambda moment, run: _digits(moment.hour % 12 or 12, run),
    "H": lambda moment, run: _digits(moment.hour, run),
    "k": lambda moment, run: _digits(moment.hour or 24, run),
    "m": lambda moment, run: _digits(moment.minute, run),
    "s": lambda moment, run: _digits(moment.second, run),
    "S": lambda moment, run: f"{moment.microsecond // 1000:03d}".ljust(len(run), "0")[: len(run)],
    "z": lambda moment, _run: moment.tzname() or "",
    "Z": lambda moment, run: (
        str(moment.tzinfo) if len(run) >= len("ZZZ") else _offset(moment, colon=len(run) == len("ZZ"))
    ),
}


def parse_time(run: EvaluationContext, pattern: Value, moment: Value, *zone: Value) -> Value:
    """Format a timestamp with a pattern."""
    wanted, millis = text_of(pattern, run.meter), int_of(moment)
    name = text_of(zone[0], run.meter) if zone else "UTC"
    if wanted is UNDEFINED or millis is UNDEFINED or name is UNDEFINED or len(wanted) > _MAX_PATTERN_CHARS:
        return UNDEFINED
    run.meter.take(_STEPS)
    place, parts = _zone(name), _parts(wanted)
    if place is None or parts is None:
        return UNDEFINED
    try:
        at = (_EPOCH + timedelta(milliseconds=millis)).astimezone(place)
        return "".join(_WRITERS[letter](at, text) if letter else text for letter, text in parts)
    except (KeyError, OverflowError, ValueError):
        return UNDEFINED


_ZONE_TEXT = r"((?:UTC|GMT|UT)?[+-][0-9]{1,2}(?::?[0-9]{2})?|[A-Za-z][A-Za-z0-9_+/\-]*)"
_WORDS = "([A-Za-z]+)"


def _reader(letter: str, run: str) -> tuple[str, str] | None:  # noqa: PLR0911 - one per kind of character
    """Return the regular expression and field of a letter run; None if java.time's letter is not supported."""
    count = len(run)
    if letter in "yu":
        return (
            ("year2", "([0-9]{2})")
            if count == len("yy")
            else ("year", f"([0-9]{{{min(count, 4)},9}})" if count != _FULL else "([0-9]{4})")
        )
    if letter in "ML" and count >= len("MMM"):
        return "month_name", _WORDS
    if letter == "S":
        return "fraction", f"([0-9]{{{min(count, 9)}}})"
    if letter == "E":
        return "", _WORDS
    if letter in "aG":
        return ("half" if letter == "a" else ""), _WORDS
    if letter in "VzOXxZ":
        return "zone", _ZONE_TEXT
    names = {
        "M": "month",
        "L": "month",
        "d": "day",
        "H": "hour",
        "k": "hour24",
        "h": "hour12",
        "K": "hour0",
        "m": "minute",
        "s": "second",
    }
    if letter not in names:
        return None
    return names[letter], "([0-9]{2})" if count == len("dd") else "([0-9]{1,2})"


@lru_cache(maxsize=64)
def _reading(pattern: str) -> tuple[Any, tuple[str, ...]] | None:
    import re2  # noqa: PLC0415 - as in `patterns`

    parts = _parts(pattern)
    if parts is None:
        return None
    names: list[str] = []
    made = ""
    for letter, text in parts:
        if not letter:
            made += re2.escape(text)
            continue
        if (reader := _reader(letter, text)) is None:
            return None
        names.append(reader[0])
        made += reader[1]
    try:
        return re2.compile(made), tuple(names)
    except re2.error:
        return None


def time_to_epoch(run: EvaluationContext, text: Value, pattern: Value) -> Value:
    """Parse a timestamp; without a time zone it is UTC."""
    written, wanted = text_of(text, run.meter), text_of(pattern, run.meter)
    if written is UNDEFINED or wanted is UNDEFINED:
        return UNDEFINED
    if len(written) > _MAX_TEXT_CHARS or len(wanted) > _MAX_PATTERN_CHARS:
        return UNDEFINED
    run.meter.take(_STEPS)
    reading = _reading(wanted)
    if reading is None or (found := reading[0].fullmatch(written)) is None:
        return UNDEFINED
    said = dict(zip(reading[1], found.groups(), strict=True))
    try:
        return _moment(said)
    except (KeyError, OverflowError, ValueError):
        return UNDEFINED


def _moment(values: Mapping[str, str]) -> int | Undefined:
    zone = _zone(values.get("zone", "UTC"))
    if zone is None or not {"year", "year2"} & values.keys():
        return UNDEFINED
    month = _MONTHS[values["month_name"].lower()] if "month_name" in values else int(values.get("month", 1))
    hour = int(values.get("hour", 0))
    if "hour24" in values:
        hour = int(values["hour24"]) % 24
    if "hour12" in values or "hour0" in values:
        hour = int(values.get("hour12", values.get("hour0", "0"))) % 12
        hour += {"am": 0, "pm": 12}[values.get("half", "am").lower()]
    at = datetime(
        int(values["year"]) if "year" in values else 2000 + int(values["year2"]),
        month,
        int(values.get("day", 1)),
        hour,
        int(values.get("minute", 0)),
        int(values.get("second", 0)),
        int(values.get("fraction", "0").ljust(9, "0")[:6]),
        tzinfo=zone,
    )
    return (at - _EPOCH) // timedelta(milliseconds=1)


FUNCTIONS = (
    SqlFunction("parse_time", parse_time, 2, 3, NEW),
    SqlFunction("time_to_epoch", time_to_epoch, 2, 2, NEW),
)
