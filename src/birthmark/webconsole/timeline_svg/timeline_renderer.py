"""Renders a timeline: lanes below each other, a time axis below them, and the current time."""

from collections.abc import Sequence
from datetime import datetime
from xml.sax.saxutils import escape

from birthmark.webconsole.charts.axes import lower
from birthmark.webconsole.svg import (
    LINE_PX,
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
from birthmark.webconsole.timeline_svg.layout import LEVELS, Field, Mark, PlacedLane, end_of, is_solid, place
from birthmark.webconsole.timeline_svg.time_axis import Scale, reach, ticks
from birthmark.webconsole.timeline_svg.timeline_items_and_table_rows import (
    Item,
    TimelineLane,
    TimelineSpan,
    TimelineTexts,
)

MAX_BYTES = 28 * 1024
_MOST_MARKS = 70
_TOLD_BYTES = 9_000  # of all titles
_LEAST_TOLD = 60  # bytes each
_LISTED = 5  # items in the title of a combined mark
_TOP = 22
_POINT_PX, _SPAN_PX, _LABEL_PX = 20, 13, 16
_LEAST_PX = 0.1  # narrower shapes are omitted
_STACKED_PX = 480  # narrower drawings have lane names above the lanes


def timeline_svg(
    lanes: Sequence[TimelineLane], *, now: datetime, name: str, title: str, desc: str, texts: TimelineTexts, size: Size
) -> str:
    """Return the timeline as SVG, named `name` within its page: as fine as is readable within `MAX_BYTES`.

    More lanes than a page has, or links of a kilobyte, may exceed the limit.

    Raise `ValueError` for a link to another server.
    """
    for coarsest in range(len(LEVELS)):
        draft = _Draft(lanes, now, texts, size, coarsest)
        if draft.is_readable or coarsest == len(LEVELS) - 1:
            drawn = draft.drawn(name, title, desc)
            if len(drawn.encode()) <= MAX_BYTES:
                return drawn
    return draft.drawn(name, title, desc, told_bytes=0)


class _Draft:
    """A layout attempt, with lanes at least as coarse as a level."""

    def __init__(
        self, lanes: Sequence[TimelineLane], now: datetime, texts: TimelineTexts, size: Size, coarsest: int
    ) -> None:
        self._now, self._words, self._size = now, texts, size
        self._is_stacked = size.width < _STACKED_PX
        names = [cut(lane.label, size.width * 0.24, is_strong=True) for lane in lanes]
        widest = max((width_of(label, is_strong=True) for label in names), default=0.0)
        self._left = 0.0 if self._is_stacked else widest + 20
        items = [item for lane in lanes for item in lane.items]
        ends = [item.end for item in items if isinstance(item, TimelineSpan) and item.end]
        first, last = reach((item.since for item in items), (*ends, *(item.since for item in items)), now)
        self._scale = Scale(first, last, self._left + 7, size.width - 9.0)
        field = Field(self._scale, self._left, size.width - 1.0, self._scale.x(now))
        self._placed = [place(lane, field, texts, coarsest) for lane in lanes]
        self._marks = sum(placed.marks for placed in self._placed)
        self._told = 0

    @property
    def is_readable(self) -> bool:
        return self._marks <= _MOST_MARKS

    def drawn(self, name: str, title: str, desc: str, told_bytes: int = _TOLD_BYTES) -> str:
        """Return the drawing; its tooltips take about `told_bytes` in total, or the minimum for each."""
        self._told = max(told_bytes // max(self._marks, 1), _LEAST_TOLD)
        width = self._size.width
        y, drawn = float(_TOP), ""
        for placed in self._placed:
            lane, y = self._lane(placed, y)
            drawn += lane
        at = self._scale.x(self._now)
        below = lower(ticks(self._scale, self._words.tick, width), y, _TOP)
        line = element("line", x1=at, x2=at, y1=16.0, y2=y, class_="today")
        said = centered(self._words.now, at, 11, (0, width), "now strong").drawn()
        if not any(placed.lane.items for placed in self._placed):
            y, below, line, said = y + 40, "", "", ""
            drawn += centered(self._words.empty, width / 2, y - 12, (0, width), "empty").drawn()
        return drawing(
            below + line + drawn + said, self._size, name=name, height=y + 22, title=title, desc=desc, kind="life"
        )

    def _lane(self, placed: PlacedLane, y: float) -> tuple[str, float]:
        """Return the lane that starts at `y`, and its lower end."""
        room = self._size.width - 2.0 if self._is_stacked else self._left - 20
        label = SvgLabel(cut(placed.lane.label, room, is_strong=True), 0, y + 19, look="lane")
        top = y + (LINE_PX + 10 if self._is_stacked else 6)
        spans = top + placed.point_rows * _POINT_PX
        labels = spans + placed.span_rows * _SPAN_PX + (4 if placed.point_rows and placed.span_rows else 0)
        drawn = "".join(self._point_mark(placed, mark, top + mark.row * _POINT_PX + 10) for mark in placed.points)
        drawn += "".join(
            self._span_mark(placed, mark, labels - (placed.span_rows - mark.row) * _SPAN_PX + 2)
            for mark in placed.spans
        )
        for mark in placed.spans:
            if mark.label_x is not None:
                at = labels + mark.label_row * _LABEL_PX + 11
                drawn += SvgLabel(mark.label, mark.label_x, at, look=f"of {mark.kind}").drawn()
        end = max(labels + placed.label_rows * _LABEL_PX + 6, top + 22)
        rule = element("line", x1=0, x2=self._size.width, y1=end, y2=end, class_="grid")
        return rule + label.drawn() + drawn, end

    def _told_of(self, items: Sequence[Item], label: str) -> str:
        """Return the tooltip of a mark: the exact text of its item, or the number, first and last of its items."""
        if len(items) == 1:
            return _bounded(self._words.exactly(items[0]), self._told)
        kept = items if len(items) <= _LISTED else (*items[: _LISTED - 3], None, *items[-2:])
        each = self._told // (len(kept) + 1)
        listed = ["…" if item is None else _bounded(self._words.exactly(item), each) for item in kept]
        return "\n".join([_bounded(label, each), *listed])

    def _link_of(self, placed: PlacedLane, items: Sequence[Item]) -> str | None:
        return items[0].link if len(items) == 1 else placed.lane.link

    def _point_mark(self, placed: PlacedLane, mark: Mark, y: float) -> str:
        drawn = ""
        several = self._words.together(placed.lane, mark.items)
        if len(mark.items) == 1:
            shape = _glyph(mark.kind, mark.left, y)
            drawn += linked(shape, self._link_of(placed, mark.items), self._told_of(mark.items, several))
        elif is_solid(mark):
            width = mark.right - mark.left + 10
            shape = element(
                "rect", x=mark.left - 5, y=y - 5, width=width, height=10, rx=5, class_=f"mark many {mark.kind}"
            )
            drawn += linked(shape, self._link_of(placed, mark.items), self._told_of(mark.items, several))
        else:
            drawn += element("line", x1=mark.left, x2=mark.right, y1=y, y2=y, class_=f"thread {mark.kind}")
            for item in mark.items:
                shape = _glyph(item.kind, self._scale.x(item.since), y)
                drawn += linked(shape, item.link, self._told_of([item], ""))
        if mark.label_x is not None:
            below = (mark.label_row - mark.row) * _POINT_PX
            drawn += SvgLabel(mark.label, mark.label_x, y + 4 + below, look=f"of {mark.kind}").drawn()
        return drawn

    def _span_mark(self, placed: PlacedLane, mark: Mark, y: float) -> str:
        """Return a bar up to the current time, its future part, and an arrow if it continues beyond the drawing."""
        now = self._scale.x(self._now)
        ends = [
            now if isinstance(item, TimelineSpan) and item.end is None else end_of(item, self._scale)
            for item in mark.items
        ]
        right = max(*ends, mark.left + 3)
        past, look = min(right, max(now, mark.left)), f"span {'many ' if len(mark.items) > 1 else ''}{mark.kind}"
        is_open = any(isinstance(item, TimelineSpan) and item.end is None for item in mark.items)
        drawn = ""
        if past - mark.left > _LEAST_PX:
            drawn += element(
                "rect",
                x=mark.left,
                y=y,
                width=past - mark.left,
                height=8,
                rx=min(3, (past - mark.left) / 2),
                class_=look,
            )
        if right - past > _LEAST_PX:
            drawn += element("rect", x=past, y=y, width=right - past, height=8, class_=f"{look} future")
        if len(mark.items) > 1:
            drawn += element("line", x1=mark.left + 4, x2=right, y1=y + 4, y2=y + 4, class_="cuts")
        beyond = any(isinstance(item, TimelineSpan) and item.end and item.end > self._scale.last for item in mark.items)
        if beyond:
            drawn += element("path", d=f"M{right + 1:.1f} {y:.1f} l5 4 l-5 4", class_=f"arrow {mark.kind}")
        elif mark.kind in {Tone.BAD, Tone.WARN}:
            drawn += _glyph(mark.kind, right, y + 4)
        elif is_open:
            drawn += element("circle", cx=past, cy=y + 4, r=4, class_=f"open {mark.kind}")
        return linked(
            drawn,
            self._link_of(placed, mark.items),
            self._told_of(mark.items, self._words.together(placed.lane, mark.items)),
        )


def _bounded(text: str, most_bytes: int) -> str:
    """Return `text`, sanitized, in at most `most_bytes` after escaping."""
    kept = shortened(text)
    chars = len(kept)
    while chars > 1 and len(escape(kept).encode()) > most_bytes:
        chars = chars * 3 // 4
        kept = shortened(text, chars)
    return kept


def _glyph(kind: Tone, x: float, y: float) -> str:
    """Return a mark whose shape also shows its kind, for color-blind users: dot, ring, triangle, cross."""
    look = f"mark {kind}"
    match kind:
        case Tone.WARN:
            return element("path", d=f"M{x:.1f} {y - 6:.1f} l6 11 h-12Z", class_=look)
        case Tone.BAD:
            return element("path", d=f"M{x:.1f} {y - 6:.1f} l6 6 l-6 6 l-6 -6Z", class_=look)
        case Tone.GOOD:
            return element("circle", cx=x, cy=y, r=5, class_=look)
        case Tone.USUAL | Tone.INFO:
            return element("circle", cx=x, cy=y, r=4.2, class_=look)
