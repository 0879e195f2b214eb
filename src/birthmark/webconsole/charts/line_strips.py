"""Several values per hour: one strip each with a separate scale, over a common time axis.

Separate strips keep small values visible: a dozen refusals next to a thousand renewals would be a line along zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from birthmark.webconsole.charts.axes import Number, Plot, Tick, gutter, lower, readable, round_ticks, upright
from birthmark.webconsole.charts.bars import standouts
from birthmark.webconsole.svg import (
    LINE_PX,
    Anchor,
    Size,
    SvgLabel,
    Tone,
    centered,
    cut,
    drawing,
    element,
    linked,
    shortened,
    width_of,
)

_NUMBER = "number strong"
_LEAST_PX = 48  # of a strip, without its heading
_BESIDE = 0.27  # of the width, for labels at the right end; wider ones go above


@dataclass(frozen=True, slots=True)
class Series:
    """A value over the intervals, None if unknown; `unit` is the counted quantity and its period."""

    label: str
    unit: str
    values: Sequence[float | None]
    tone: Tone = Tone.USUAL
    latest: str = ""
    """Text for the value of an incomplete interval, with `{n}`; if empty, the previous value is shown."""

    @property
    def most(self) -> float:
        return max((value for value in self.values if value is not None), default=0)


def lines(
    series: Sequence[Series],
    *,
    name: str,
    title: str,
    desc: str,
    number: Number,
    size: Size,
    ticks: Sequence[Tick] = (),
    words: Sequence[str] = (),
    unfinished: str = "",
    empty: str = "",
) -> str:
    """Return a chart of up to four `series` with the same intervals; `name` identifies the chart on its page.

    `words` are the labels of the intervals. `unfinished` is the note for an incomplete last interval; empty if it is
    complete.
    """
    intervals = max((len(each.values) for each in series), default=0)
    label_width = _label_width(series, number, size.width, is_over=not unfinished)
    above = LINE_PX + (2 if label_width else 16)
    each_px = max(_LEAST_PX, (size.height - 24) / max(len(series), 1) - above) if series else size.height - 30
    marks = [round_ticks(each.most, limit=3) for each in series]
    left = max((gutter(own, number, size.width) for own in marks), default=24)
    right = size.width - label_width - (1 if not label_width else 10)
    drawn, bottom = "", 0.0
    for index, (one, own) in enumerate(zip(series, marks, strict=True)):
        top = index * (each_px + above) + (above if not label_width else 8)
        plot = Plot(left, top, right, top + each_px, own[-1], intervals)
        drawn += upright(plot, own, number) + _strip(plot, one, is_over=not unfinished)
        drawn += _named(plot, one, number, size.width, label_width, is_over=not unfinished)
        bottom = plot.bottom
    if not series:
        bottom = each_px
        drawn += element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="zero")
    whole = Plot(left, 0, right, bottom, 1, intervals)
    drawn = lower(readable(ticks, whole.x, size.width), bottom, 8 if label_width else above) + drawn
    if not any(value is not None for one in series for value in one.values):
        drawn += centered(empty, (left + right) / 2, bottom / 2, (left, right), "empty").drawn()
    drawn += _told(whole, words, unfinished)
    return drawing(drawn, size, name=name, height=bottom + 22, title=title, desc=desc, kind="lines")


def _told(plot: Plot, words: Sequence[str], unfinished: str) -> str:
    """Return the hover area of each interval, across all strips."""
    drawn = ""
    for index in range(plot.intervals):
        is_last = index == plot.intervals - 1
        said = [shortened(text) for text in (*words[index : index + 1], unfinished if is_last else "") if text]
        if said:
            look = f"reach{' unfinished' if is_last and unfinished else ''}"
            reach = element("rect", x=plot.x(index), y=0.0, width=plot.step, height=plot.bottom, class_=look)
            drawn += linked(reach, None, "\n".join(said))
    return drawn


def _last(series: Series, *, is_over: bool) -> tuple[int, float] | None:
    """Return the index and value of the latest complete interval."""
    known = [(index, value) for index, value in enumerate(series.values) if value is not None]
    over = [pair for pair in known if is_over or pair[0] < len(series.values) - 1]
    return over[-1] if over else None


def _reading(series: Series, number: Number, *, is_over: bool) -> str:
    last = _last(series, is_over=is_over)
    if not is_over and series.latest and series.values and series.values[-1] is not None:
        return series.latest.format(n=number(series.values[-1]))
    return f"{number(last[1])} {series.unit}" if last else series.unit


def _label_width(series: Sequence[Series], number: Number, width: int, *, is_over: bool) -> float:
    """Return the width of the labels at the right end, or zero if they are too wide."""
    widths = [
        max(width_of(one.label, is_strong=True), width_of(_reading(one, number, is_over=is_over))) for one in series
    ]
    widest = max(widths, default=0)
    return widest if widest <= width * _BESIDE else 0.0


def _named(plot: Plot, series: Series, number: Number, width: int, label_width: float, *, is_over: bool) -> str:
    """Return the strip's name and latest value, at its right end or above it."""
    reading = _reading(series, number, is_over=is_over)
    look = f"strong name {series.tone}"
    if label_width:
        middle = (plot.top + plot.bottom) / 2
        names = [SvgLabel(cut(series.label, label_width, is_strong=True), plot.right + 10, middle - 3, look=look)]
        names.append(SvgLabel(cut(reading, label_width), plot.right + 10, middle + 12))
    else:
        y = plot.top - 13
        right = SvgLabel(cut(reading, width * 0.5), width, y, Anchor.END)
        names = [SvgLabel(cut(series.label, right.box.left - 10, is_strong=True), 0, y, look=look), right]
    return "".join(label.drawn() for label in names) + _peak(plot, series, number)


def _peak(plot: Plot, series: Series, number: Number) -> str:
    """Return the label of the highest value if it is an outlier, on the side with more space."""
    values = [value or 0 for value in series.values]
    found = [index for index in standouts(values) if values[index] == series.most]
    if not found:
        return ""
    x, y, words = plot.x(found[0] + 0.5), plot.y(series.most) + 9, number(series.most)
    away = plot.step * 2 + 3
    sides = [SvgLabel(words, x + away, y, Anchor.START, _NUMBER), SvgLabel(words, x - away, y, Anchor.END, _NUMBER)]
    inside = [label for label in sides if plot.left <= label.box.left and label.box.right <= plot.right]
    return inside[-1 if found[0] * 2 > len(values) else 0].drawn() if inside else ""


def _strip(plot: Plot, series: Series, *, is_over: bool) -> str:
    """Return the runs of known values: line, area to zero, a dot for a single value; the incomplete end is dashed."""
    drawn = ""
    for run in _runs(series.values):
        points = [(plot.x(index + 0.5), plot.y(value)) for index, value in run]
        is_open = not is_over and run[-1][0] == len(series.values) - 1
        firm = points[:-1] if is_open else points
        if len(firm) > 1:
            area = f"{_path(firm)} L{firm[-1][0]:.1f} {plot.bottom:.1f} L{firm[0][0]:.1f} {plot.bottom:.1f}Z"
            drawn += element("path", d=area, class_=f"area {series.tone}")
            drawn += element("path", d=_path(firm), class_=f"line {series.tone}")
        elif firm:
            drawn += element("circle", cx=firm[0][0], cy=firm[0][1], r=2, class_=f"dot {series.tone}")
        if is_open:
            drawn += element("path", d=_path(points[-2:]), class_=f"line {series.tone} unfinished") if firm else ""
            drawn += element(
                "circle", cx=points[-1][0], cy=points[-1][1], r=2.5, class_=f"dot {series.tone} unfinished"
            )
    return drawn


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index, value))
    return [run for run in runs if run]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
