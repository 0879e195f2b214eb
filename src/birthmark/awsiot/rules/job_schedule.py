"""Job schedule: start, end, and maintenance windows (API reference, SchedulingConfig and MaintenanceWindow).

A window recurs by a cron expression of six fields, as in Amazon EventBridge. They are minutes, hours, day of the month,
month, day of the week (1 or SUN to 7 or SAT), and an optional year. One of the two days is `?`, and `cron(…)` around it
is optional. All times are UTC and depend on the current time alone, so a clock jump has no lasting effect.
"""

import calendar
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.jobs import JobConfiguration, MaintenanceWindow, SchedulingConfig

LEAST = timedelta(minutes=30)
MAX_AHEAD = timedelta(days=365)
MAX_TIME = timedelta(days=2 * 365)
MAX_WINDOWS = 7
SHOWN = 7
_LOOK_DAYS = 5 * 366  # February 29 is at most eight years apart, and no job lives that long
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?")
_MONTHS = [name.upper() for name in calendar.month_abbr]
_DAYS = ["", "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_FIELDS = 6
_NUMBER = re.compile(r"[0-9]{1,4}")
_ORDINAL = re.compile(r"([1-7])#([1-5])")
_LAST_WEEKDAY = re.compile(r"([1-7])L")


@dataclass(frozen=True, slots=True)
class Cron:
    """Recurrence: `last_day` of the month; `ordinals` and `last_weekdays` are weekdays of the month."""

    minutes: Sequence[int]
    hours: Sequence[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    years: frozenset[int]
    last_day: bool
    ordinals: frozenset[tuple[int, int]]
    last_weekdays: frozenset[int]

    def is_on(self, day: datetime) -> bool:
        """Return whether it recurs on the day of a given time."""
        if day.month not in self.months or day.year not in self.years:
            return False
        length, weekday = calendar.monthrange(day.year, day.month)[1], day.isoweekday() % 7 + 1
        return (
            day.day in self.days
            or (self.last_day and day.day == length)
            or weekday in self.weekdays
            or (weekday, (day.day + 6) // 7) in self.ordinals
            or (weekday in self.last_weekdays and day.day > length - 7)
        )

    def after(self, moment: datetime, days: int = _LOOK_DAYS) -> datetime | None:
        """Return the next recurrence after a time; None if there is none within `days`."""
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        last = day + timedelta(days=days)
        while day < last:
            if day.year not in self.years:
                day = day.replace(year=day.year + 1, month=1, day=1)
            elif day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            else:
                if self.is_on(day) and (found := self._first(day, moment)) is not None:
                    return found
                day += timedelta(days=1)
        return None

    def _first(self, day: datetime, moment: datetime) -> datetime | None:
        """Return the first recurrence on a matching day after a time on that day or earlier."""
        if day > moment:
            return day.replace(hour=self.hours[0], minute=self.minutes[0])
        for hour in self.hours[bisect_left(self.hours, moment.hour) :]:
            this_hour = hour == moment.hour
            for minute in self.minutes[bisect_left(self.minutes, moment.minute) if this_hour else 0 :][:2]:
                if (found := day.replace(hour=hour, minute=minute)) > moment:
                    return found
        return None


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> Cron:
    """Parse the recurrence of a window. Raise `BodyInvalidError`."""
    inner = text.strip()
    if inner.startswith("cron(") and inner.endswith(")"):
        inner = inner[5:-1]
    fields = inner.upper().split()
    wrong = BodyInvalidError(
        detail=f"maintenanceWindows startTime {text[:100]!r} is not an expression such as cron(0 18 ? * MON *)"
    )
    if len(fields) == _FIELDS - 1:
        fields.append("*")
    if len(fields) != _FIELDS or (fields[2] == "?") == (fields[4] == "?"):
        raise wrong
    try:
        return _cron(fields)
    except ValueError as error:
        raise wrong from error


def _cron(fields: Sequence[str]) -> Cron:
    minutes, hours, day, month, weekday, year = fields
    days = [] if day in {"?", "L"} else _numbers(day, 1, 31)
    parts = [] if weekday == "?" else weekday.split(",")
    ordinals = {(int(found[1]), int(found[2])) for part in parts if (found := _ORDINAL.fullmatch(part))}
    last = {int(found[1]) for part in parts if (found := _LAST_WEEKDAY.fullmatch(_named(part, _DAYS)))}
    plain = [part for part in parts if "#" not in part and not part.endswith("L")]
    if len(ordinals) + len(last) + len(plain) != len(parts):
        raise ValueError
    return Cron(
        _numbers(minutes, 0, 59),
        _numbers(hours, 0, 23),
        frozenset(days),
        frozenset(_numbers(month, 1, 12, _MONTHS)),
        frozenset(_numbers(",".join(plain), 1, 7, _DAYS) if plain else ()),
        frozenset(_numbers(year, 1970, 2199)),
        last_day=day == "L",
        ordinals=frozenset(ordinals),
        last_weekdays=frozenset(last),
    )


def _named(text: str, names: Sequence[str]) -> str:
    """Return a text with names replaced by their numbers."""
    for number, name in enumerate(names):
        if name:
            text = text.replace(name, str(number))
    return text


def _numbers(text: str, least: int, limit: int, names: Sequence[str] = ()) -> list[int]:
    """Return the numbers in a field. Raise `ValueError`."""
    found: set[int] = set()
    for part in _named(text, names).split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            start, stop = least, limit
        else:
            start = _number(first)
            stop = _number(last) if dash else limit if step else start
        by = _number(step) if "/" in part else 1
        if not (least <= start <= stop <= limit and by >= 1):
            raise ValueError(part)
        found.update(range(start, stop + 1, by))
    return sorted(found)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def parse_moment(text: str, name: str) -> datetime:
    """Parse a scheduled time; UTC if it has no zone. Raise `BodyInvalidError`."""
    wrong = BodyInvalidError(
        detail=f"schedulingConfig {name} {text[:64]!r} is not a time such as 2026-01-31T18:00 (UTC)"
    )
    if _MOMENT.fullmatch(text) is None:
        raise wrong
    try:
        made = datetime.fromisoformat(text)
    except ValueError as error:
        raise wrong from error
    return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)


_AWS_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def _check_form(text: str | None, name: str) -> None:
    """Raise `BodyInvalidError` for a format that AWS rejects; jobs of earlier releases may contain others."""
    if text is not None and _AWS_MOMENT.fullmatch(text) is None:
        told = f"1 validation error detected: Provided time {text[:64]} in {name}"
        raise BodyInvalidError(detail=f"{told} must follow the format YYYY-MM-DDThh:mm, in UTC")


def check(config: SchedulingConfig, now: datetime, *, is_continuous: bool) -> None:
    """Raise `BodyInvalidError` for a schedule that is not valid for the job."""
    _check_form(config.start_time, "startTime")
    _check_form(config.end_time, "endTime")
    start = None if config.start_time is None else parse_moment(config.start_time, "startTime")
    end = None if config.end_time is None else parse_moment(config.end_time, "endTime")
    if start is not None and not now + LEAST <= start <= now + MAX_AHEAD:
        raise BodyInvalidError(detail="schedulingConfig startTime is 30 minutes to a year from now")
    if end is not None and not (start or now) + LEAST <= end <= now + MAX_TIME:
        raise BodyInvalidError(detail="schedulingConfig endTime is 30 minutes after the start to two years from now")
    if config.end_behavior is not None and end is None:
        raise BodyInvalidError(detail="schedulingConfig endBehavior requires endTime")
    check_windows(config.maintenance_windows or (), now)
    if config.maintenance_windows and not is_continuous:
        raise BodyInvalidError(detail="maintenanceWindows require a job with targetSelection CONTINUOUS")


def check_windows(windows: Sequence[MaintenanceWindow], now: datetime) -> None:
    """Raise `BodyInvalidError` for impossible windows or windows that never open."""
    if len(windows) > MAX_WINDOWS:
        raise BodyInvalidError(detail=f"maintenanceWindows has more than {MAX_WINDOWS} entries")
    for one in windows:
        if parse_cron(one.start_time).after(now) is None:
            raise BodyInvalidError(detail=f"maintenanceWindows startTime {one.start_time[:100]!r} never occurs")


def starts_at(settings: JobConfiguration) -> datetime | None:
    """Return the start of a job; None if it started at its creation."""
    config = settings.scheduling_config
    return None if config is None or config.start_time is None else parse_moment(config.start_time, "startTime")


def is_over(settings: JobConfiguration, now: datetime) -> bool:
    """Return whether the job's end time has passed."""
    config = settings.scheduling_config
    return config is not None and config.end_time is not None and parse_moment(config.end_time, "endTime") <= now


def may_go_out(settings: JobConfiguration, now: datetime) -> bool:
    """Return whether a window of the job is open, or it has none."""
    config = settings.scheduling_config
    if config is None or not config.maintenance_windows:
        return True
    for one in config.maintenance_windows:
        began = parse_cron(one.start_time).after(now - timedelta(minutes=one.duration_in_minutes), days=2)
        if began is not None and began <= now:
            return True
    return False


def openings(settings: JobConfiguration, now: datetime) -> Iterator[datetime]:
    """Yield the next window openings of a job until its end."""
    config = settings.scheduling_config
    if config is None or not config.maintenance_windows:
        return
    moment = max(now, starts_at(settings) or now)
    for _ in range(SHOWN):
        following = [found for one in config.maintenance_windows if (found := parse_cron(one.start_time).after(moment))]
        if not following or is_over(settings, moment := min(following)):
            return
        yield moment
