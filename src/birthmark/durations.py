"""Durations as text: `250ms`, `20s`, `30min` or `30m`, `12h`, `365d`."""

import re
from collections.abc import Mapping
from datetime import timedelta

FORMS = "20s, 30min, 12h or 365d"
_WRITTEN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|min|h|d)")
_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration_of(text: str) -> timedelta:
    """Parse a duration, which may be zero. Raise `ValueError` with the valid forms."""
    if (found := _WRITTEN.fullmatch(text)) is None:
        raise ValueError(f"give a number and a unit: {FORMS}")
    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    except OverflowError as error:
        raise ValueError(f"the duration is too long; use a number and a unit: {FORMS}") from error


def lifetime_of(text: str) -> timedelta:
    """Return a duration of at least one second. Raise `ValueError`."""
    if (found := duration_of(text)) < timedelta(seconds=1):
        raise ValueError(f"it has to last; give a number and a unit: {FORMS}")
    return found


def format_duration(time: timedelta) -> str:
    """Format a duration in the largest unit that gives an integer: `30d`, `12h`, `90min`, `0.5s`."""
    for unit in ("d", "h", "min"):
        count, rest = divmod(time, timedelta(seconds=_UNITS[unit]))
        if count and not rest:
            return f"{count}{unit}"
    return f"{time.total_seconds():g}s"
