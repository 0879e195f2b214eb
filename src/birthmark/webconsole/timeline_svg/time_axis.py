"""Time axis of a device's life: from its first hour to slightly after now, with steps from hours to years."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from birthmark.webconsole.charts.axes import Tick, readable
from birthmark.webconsole.svg import SvgLabel

_AHEAD = 0.3  # of the past: how much future is shown, so that an endless certificate does not squeeze it
_LEAST = timedelta(hours=1)
_MOST_TICKS = 40


class Unit(StrEnum):
    """Unit of time that starts at an axis mark."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    YEAR = "year"


_STEPS = [
    *((Unit.MINUTE, every) for every in (10, 30)),
    *((Unit.HOUR, every) for every in (1, 3, 6, 12)),
    *((Unit.DAY, every) for every in (1, 2, 7)),
    *((Unit.MONTH, every) for every in (1, 3, 6)),
    *((Unit.YEAR, every) for every in (1, 2, 5, 10, 50, 200)),
]


@dataclass(frozen=True, slots=True)
class Scale:
    """Converts times to pixels."""

    first: datetime
    last: datetime
    left: float
    right: float

    def x(self, moment: datetime) -> float:
        """Return the position of `moment`; outside values are at the edge."""
        part = (moment - self.first) / (self.last - self.first)
        return self.left + (self.right - self.left) * min(max(part, 0.0), 1.0)


def reach(since: Iterable[datetime], until: Iterable[datetime], now: datetime) -> tuple[datetime, datetime]:
    """Return the first and last moment to show, in the time zone of `now`."""
    first = min((*since, now - _LEAST)).astimezone(now.tzinfo)
    lived = now - first
    latest = max((*until, now))
    ahead = min(latest - now, lived * _AHEAD)
    return first, now + max(ahead, lived * 0.02)


def ticks(scale: Scale, say: Callable[[datetime, Unit, bool], str], right: float) -> list[tuple[float, SvgLabel]]:
    """Return the finest axis marks whose labels do not overlap."""
    whole = scale.last - scale.first
    shown: list[tuple[float, SvgLabel]] = []
    for unit, every in _STEPS:
        if whole / _about(unit, every) > _MOST_TICKS:
            continue
        moments = list(_moments(scale.first, scale.last, unit, every))
        marks = [_tick(scale, say, moment, unit, is_first=moment is moments[0]) for moment in moments]
        found = readable(marks, lambda x: x, right)
        if len(found) > len(shown) or not shown:
            shown = found
        if len(found) >= len(marks) - 1 and found:
            return found
    return shown


def _tick(
    scale: Scale, say: Callable[[datetime, Unit, bool], str], moment: datetime, unit: Unit, *, is_first: bool
) -> Tick:
    begins = _begins(moment, unit)
    return Tick(scale.x(moment), say(moment, begins, is_first), is_major=is_first or begins is not unit)


def _begins(moment: datetime, unit: Unit) -> Unit:
    """Return the unit that starts at a mark: a day at midnight, a year in January."""
    if unit in {Unit.MINUTE, Unit.HOUR} and moment.hour == moment.minute == 0:
        return Unit.DAY
    return Unit.YEAR if unit is Unit.MONTH and moment.month == 1 else unit


def _about(unit: Unit, every: int) -> timedelta:
    days = {Unit.MINUTE: 1 / 1440, Unit.HOUR: 1 / 24, Unit.DAY: 1, Unit.MONTH: 30, Unit.YEAR: 365}
    return timedelta(days=days[unit] * every)


def _moments(first: datetime, last: datetime, unit: Unit, every: int) -> Iterator[datetime]:
    moment = _floor(first, unit, every)
    while moment <= last:
        if moment >= first:
            yield moment
        if moment.year >= 9000:  # noqa: PLR2004 - no expiry; further steps overflow the calendar
            return
        moment = _next(moment, unit, every)


def _floor(moment: datetime, unit: Unit, every: int) -> datetime:
    whole = moment.replace(second=0, microsecond=0)
    match unit:
        case Unit.MINUTE:
            return whole.replace(minute=whole.minute // every * every)
        case Unit.HOUR:
            return whole.replace(hour=whole.hour // every * every, minute=0)
        case Unit.DAY:
            day = whole.replace(hour=0, minute=0)
            return day - timedelta(days=day.toordinal() % every)
        case Unit.MONTH:
            return whole.replace(month=(whole.month - 1) // every * every + 1, day=1, hour=0, minute=0)
        case Unit.YEAR:
            return whole.replace(year=max(whole.year // every * every, 1), month=1, day=1, hour=0, minute=0)


def _next(moment: datetime, unit: Unit, every: int) -> datetime:
    match unit:
        case Unit.MONTH:
            months = moment.year * 12 + moment.month - 1 + every
            return moment.replace(year=months // 12, month=months % 12 + 1)
        case Unit.YEAR:
            return moment.replace(year=moment.year + every)
        case _:
            return moment + _about(unit, every)
