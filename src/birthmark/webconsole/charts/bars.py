"""Counts per period as bars; periods that differ clearly from their neighbors are labeled with their number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from birthmark.webconsole.charts.axes import Number, Plot, Tick, gutter, lower, readable, round_ticks, upright
from birthmark.webconsole.svg import (
    LINE_PX,
    Anchor,
    Box,
    Size,
    SvgLabel,
    centered,
    cut,
    drawing,
    element,
    linked,
    shortened,
    width_of,
)

_NEIGHBORS = 6  # on each side
_MADS = 7.5  # five standard deviations, 1.48 of the median distance from the median each
_WIDEST_PX = 48
_SWATCH_PX = 10


class BarKind(StrEnum):
    """Urgency of a period."""

    USUAL = "usual"
    LATE = "late"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Bar:
    """A period: its value, its exact text, and a sentence on what is incomplete."""

    value: int
    words: str
    kind: BarKind = BarKind.USUAL
    link: str | None = None
    unfinished: str = ""


def standouts(values: Sequence[float]) -> list[int]:
    """Return the indexes of outliers: twice the median of their neighbors, and far outside the neighbors' spread.

    Empty periods are not neighbors: a small fleet has mostly those, and its single certificates are not unusual.
    """
    return [index for index, value in enumerate(values) if value > 1 and value > _bound(values, index)]


def _bound(values: Sequence[float], index: int) -> float:
    before, after = values[max(0, index - _NEIGHBORS) : index], values[index + 1 : index + 1 + _NEIGHBORS]
    near = [value for value in (*before, *after) if value]
    near = near or [value for at, value in enumerate(values) if value and at != index]
    if not near:
        return 0.0
    middle = median(near)
    return middle + max(middle, _MADS * median(abs(value - middle) for value in near))


def bars(
    bars: Sequence[Bar],
    *,
    name: str,
    title: str,
    desc: str,
    unit: str,
    number: Number,
    size: Size,
    ticks: Sequence[Tick] = (),
    kinds: Mapping[BarKind, str] | None = None,
    empty: str = "",
) -> str:
    """Return a chart of `bars`, named `name` within its page; `kinds` is the legend of the unusual ones.

    `empty` is shown if there is no data. Raise `ValueError` for a link to another server.
    """
    values = [bar.value for bar in bars]
    marks = round_ticks(max(values, default=0))
    key, top = _key(bars, kinds or {}, unit, size.width)
    plot = Plot(
        left=gutter(marks, number, size.width),
        top=top + LINE_PX + 6,
        right=size.width - 1.0,
        bottom=size.height - 20.0,
        most=marks[-1],
        intervals=len(bars),
    )
    drawn = key + upright(plot, marks, number) + lower(readable(ticks, plot.x, size.width), plot.bottom)
    drawn += "".join(_bar(plot, index, bar) for index, bar in enumerate(bars))
    drawn += "".join(label.drawn() for label in _numbers(plot, values, number, size.width))
    if not any(values):
        drawn += centered(empty, (plot.left + plot.right) / 2, _middle(plot), (plot.left, plot.right), "empty").drawn()
    return drawing(drawn, size, name=name, height=size.height, title=title, desc=desc, kind="bars")


def _middle(plot: Plot) -> float:
    return (plot.top + plot.bottom) / 2 - 6


def _key(bars: Sequence[Bar], kinds: Mapping[BarKind, str], unit: str, width: int) -> tuple[str, float]:
    """Return the unit above its axis and the color legend next to or below it, and the lower end of both."""
    words = SvgLabel(cut(unit, width), 0, 11, look="unit")
    shown = [(kind, cut(said, width - _SWATCH_PX - 5)) for kind, said in kinds.items() if _has(bars, kind)]
    widths = [_SWATCH_PX + 5 + width_of(said) + 14 for _, said in shown]
    x, y = width - sum(widths) + 14, 11.0
    if shown and x < words.box.right + 20:
        x, y = 0, y + LINE_PX
    drawn = words.drawn()
    for (kind, said), room in zip(shown, widths, strict=True):
        if x > 0 and x + room - 14 > width + 0.1:
            x, y = 0, y + LINE_PX
        drawn += element("rect", x=x, y=y - 9, width=_SWATCH_PX, height=_SWATCH_PX, class_=f"bar {kind}")
        drawn += SvgLabel(said, x + _SWATCH_PX + 5, y).drawn()
        x += room
    return drawn, y + 4


def _has(bars: Sequence[Bar], kind: BarKind) -> bool:
    return any(bar.kind is kind and bar.value for bar in bars)


def _body(plot: Plot, index: int, value: float) -> Box:
    width = min(plot.step - min(2.0, plot.step / 5), _WIDEST_PX)
    left = plot.x(index + 0.5) - width / 2
    top = min(plot.y(value), plot.bottom - 1.5) if value > 0 else plot.bottom
    return Box(left, top, left + width, plot.bottom)


def _bar(plot: Plot, index: int, bar: Bar) -> str:
    """Return the bar, and its full-height hover area."""
    box = _body(plot, index, bar.value)
    look = f"bar {bar.kind}{' unfinished' if bar.unfinished else ''}"
    height = plot.bottom - plot.top
    drawn = element("rect", x=plot.x(index), y=plot.top, width=plot.step, height=height, class_="reach")
    if bar.value > 0:
        size = {"width": box.right - box.left, "height": box.bottom - box.top}
        drawn += element("rect", x=box.left, y=box.top, **size, class_=look)
    words = shortened(bar.words) + ("\n" + shortened(bar.unfinished) if bar.unfinished else "")
    return linked(drawn, bar.link, words)


def _numbers(plot: Plot, values: Sequence[int], number: Number, width: float) -> list[SvgLabel]:
    """Return the numbers of the outliers, highest first, each at a free position."""
    bodies = [_body(plot, index, value) for index, value in enumerate(values)]
    placed: list[SvgLabel] = []
    for index in sorted(standouts(values), key=lambda index: -values[index]):
        body, words = bodies[index], cut(number(values[index]), width / 2)
        high = body.top + 12
        tries = [
            centered(words, plot.x(index + 0.5), body.top - 5, (0, width), "number strong"),
            SvgLabel(words, body.right + 3, high, Anchor.START, "number strong"),
            SvgLabel(words, body.left - 3, high, Anchor.END, "number strong"),
        ]
        placed += [label for label in tries if _is_free(label, placed, bodies, (plot.left, width), plot.bottom)][:1]
    return placed


def _is_free(
    label: SvgLabel, placed: Sequence[SvgLabel], bodies: Sequence[Box], within: tuple[float, float], bottom: float
) -> bool:
    box = label.box
    return (
        within[0] <= box.left
        and box.right <= within[1]
        and box.bottom <= bottom
        and not any(box.meets(other.box, 4) for other in placed)
        and not any(box.meets(body) for body in bodies)
    )
