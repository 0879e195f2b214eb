"""Proportions as lanes below each other: label, share as a bar, and count; the total is on top."""

from collections.abc import Sequence
from dataclasses import dataclass

from birthmark.webconsole.charts.axes import Number
from birthmark.webconsole.svg import (
    LINE_PX,
    Anchor,
    Size,
    SvgLabel,
    Tone,
    cut,
    drawing,
    element,
    linked,
    shortened,
    width_of,
)

_BAND_PX, _LANE_PX, _GAP_PX = 18, 10, 8
_LEAST_PX = 2.0


@dataclass(frozen=True, slots=True)
class ProportionBar:
    """A part: its label, its count, its color, and its exact text."""

    label: str
    value: int
    tone: Tone
    words: str


def lanes(
    bars: Sequence[ProportionBar], *, total: int, name: str, title: str, desc: str, number: Number, size: Size
) -> str:
    """Return the drawing, whose height depends on the number of lanes."""
    names = min(max((width_of(lane.label) for lane in bars), default=0), size.width * 0.55)
    room = max((width_of(number(lane.value), is_strong=True) for lane in bars), default=0)
    left, right = names + 10, size.width - room - 10
    inside, at = _whole(bars, total, float(size.width)), 0.0
    y = _BAND_PX + 14.0
    for lane in bars:
        width = _long(lane.value, total, right - left)
        bar = element("rect", x=left, y=y, width=right - left, height=_LANE_PX, class_="reach")
        bar += element("line", x1=left, x2=right, y1=y + _LANE_PX, y2=y + _LANE_PX, class_="grid")
        bar += element("rect", x=left, y=y, width=width, height=_LANE_PX, rx=2, class_=_look(lane.tone))
        at = y + _LANE_PX
        bar += SvgLabel(cut(lane.label, names), 0, at).drawn()
        bar += SvgLabel(number(lane.value), size.width - 1, at, Anchor.END, "strong").drawn()
        inside += linked(bar, None, shortened(lane.words))
        y += LINE_PX + _GAP_PX
    return drawing(inside, size, name=name, height=at + 6, title=title, desc=desc, kind="lanes")


def _whole(bars: Sequence[ProportionBar], total: int, width: float) -> str:
    """Return all parts in one band; very small parts are widened at the expense of the others."""
    longs = [_long(lane.value, total, width) for lane in bars]
    scale = width / max(sum(longs), 1.0)
    drawn, x = "", 0.0
    for lane, long in zip(bars, longs, strict=True):
        if long:
            look = {"x": x, "y": 0.0, "width": long * scale - 1, "height": float(_BAND_PX)}
            drawn += linked(element("rect", **look, class_=_look(lane.tone)), None, shortened(lane.words))
        x += long * scale
    return drawn


def _long(value: int, total: int, width: float) -> float:
    return max(value / max(total, 1) * width, _LEAST_PX if value else 0.0)


def _look(tone: Tone) -> str:
    return "span" if tone is Tone.USUAL else f"span {tone}"
