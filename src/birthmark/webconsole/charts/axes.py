"""Axes: round numbers on the vertical axis and labels on the horizontal one, as many as are readable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import count, pairwise

from birthmark.webconsole.svg import Anchor, SvgLabel, cut, element, width_of

Number = Callable[[float], str]
_Said = tuple["Tick", float, SvgLabel]

_GAP_PX = 6  # between x-axis labels
_MOST = 0.3  # of the width, per label
_ONE_STEP = 2  # labels of a scale without inner steps
_TICK_PX = 14  # length of an x-axis tick next to its label


@dataclass(frozen=True, slots=True)
class Tick:
    """A position on the horizontal axis, in intervals from its left end, and the label that applies from there.

    If not all labels fit, major ones have priority, such as a new year among months.
    """

    at: float
    label: str
    is_major: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """The plot area, and the value of its upper edge; the lower edge is zero."""

    left: float
    top: float
    right: float
    bottom: float
    most: float
    intervals: int

    @property
    def step(self) -> float:
        return (self.right - self.left) / max(self.intervals, 1)

    def x(self, interval: float) -> float:
        return self.left + interval * self.step

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * max(value, 0) / self.most


def round_ticks(maximum: float, limit: int = 4) -> list[int]:
    """Return zero and two to `most` steps of 1, 2 or 5 times a power of ten; the last is the nearest above `maximum`.

    It is one step if every scale has only one.
    """
    scales = [_steps(maximum, steps) for steps in range(2, limit + 1)]
    return min(scales, key=lambda ticks: (len(ticks) == _ONE_STEP, ticks[-1], -len(ticks)))


def _steps(maximum: float, limit: int) -> list[int]:
    steps = (leading * 10**power for power in count() for leading in (1, 2, 5))
    step = next(step for step in steps if step * limit >= maximum)
    return [step * index for index in range(max(1, -int(-maximum // step)) + 1)]


def gutter(ticks: Sequence[float], number: Number, width: int) -> float:
    """Return the width of the vertical axis's numbers at the left of a drawing of `width`."""
    return min(max(width_of(number(tick)) for tick in ticks), width * 0.45) + 8


def upright(plot: Plot, ticks: Sequence[float], number: Number, to: float | None = None) -> str:
    """Return the grid lines with their numbers; the zero line has its own style."""
    room = plot.left - 8
    drawn = ""
    for tick in ticks:
        y = plot.y(tick)
        look = "grid" if tick else "zero"
        drawn += element("line", x1=plot.left, x2=to or plot.right, y1=y, y2=y, class_=look)
        drawn += SvgLabel(cut(number(tick), room), room, y + 4, Anchor.END).drawn()
    return drawn


def readable(ticks: Sequence[Tick], x: Callable[[float], float], right: float) -> list[tuple[float, SvgLabel]]:
    """Return the positions and labels of every n-th of `ticks`, with the smallest n without overlaps."""
    said = [(tick, x(tick.at), cut(tick.label, right * _MOST)) for tick in ticks]
    labels = [(tick, place, SvgLabel(words, place + 4, 0)) for tick, place, words in said]
    labels = [entry for entry in labels if entry[2].text and entry[2].box.right <= right]
    for stride in range(1, len(labels) + 1):
        tries = [_without_minor(labels[offset::stride]) for offset in range(stride)]
        if apart := [kept for kept in tries if _is_apart(kept)]:
            best = max(apart, key=lambda kept: (sum(tick.is_major for tick, *_ in kept), len(kept)))
            return [(place, label) for _, place, label in best]
    return []


def _without_minor(kept: Sequence[_Said]) -> list[_Said]:
    """Return `kept` without minor labels that the preceding major label covers: a year is longer than a month."""
    return [
        this
        for before, this in zip((None, *kept), kept, strict=False)
        if before is None or not before[0].is_major or this[0].is_major or _is_apart((before, this))
    ]


def _is_apart(kept: Sequence[_Said]) -> bool:
    return all(this[2].box.right + _GAP_PX <= following[1] for this, following in pairwise(kept))


def lower(placed: Sequence[tuple[float, SvgLabel]], bottom: float, top: float | None = None) -> str:
    """Return tick marks and labels below `bottom`; with `top`, also grid lines up to it."""
    drawn = ""
    for x, label in placed:
        drawn += element("line", x1=x, x2=x, y1=bottom, y2=bottom + _TICK_PX, class_="tick")
        if top is not None:
            drawn += element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid")
        drawn += SvgLabel(label.text, label.x, bottom + _TICK_PX).drawn()
    return drawn


def months(first: date, intervals: int, days: int = 7) -> list[tuple[float, date]]:
    """Return the starts of months among intervals of `days` from `first` on, with their dates."""
    found = []
    day = date(first.year, first.month, 1)
    while (at := (day - first).days / days) < intervals:
        if at >= 0:
            found.append((at, day))
        day = (day + timedelta(31)).replace(day=1)
    return found


def midnights(first: datetime, intervals: int) -> list[tuple[float, datetime]]:
    """Return the starts of days among hours from `first` on, in local time of its time zone."""
    hours = [(index, first + timedelta(hours=index)) for index in range(intervals)]
    return [(float(index), hour) for index, hour in hours if hour.hour == 0]
