"""Layout of a lane: items that share a mark, and the row of each mark, so that labels do not overlap."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from birthmark.webconsole.svg import Tone, cut, width_of
from birthmark.webconsole.timeline_svg.time_axis import Scale
from birthmark.webconsole.timeline_svg.timeline_items_and_table_rows import (
    Item,
    Point,
    TimelineLane,
    TimelineSpan,
    TimelineTexts,
    word_of,
)

_POINT_ROWS = 5  # one row per kind
_SPAN_ROWS = 3
_LABEL_ROWS = 2
_APART_PX = 9  # minimum distance of visible dots
_MARK_PX = 6  # half width
_GAP_PX = 12
_LABEL_PX = 160  # minimum label, before it is cut
Extent = tuple[float, float]

_SEVERITY = [Tone.BAD, Tone.WARN, Tone.GOOD, Tone.INFO, Tone.USUAL]


class LayoutLevel(NamedTuple):
    """Granularity of a lane: items nearer than `near_px` share a mark, with different labels if `is_mixed`."""

    near_px: float
    is_mixed: bool


LEVELS = [
    LayoutLevel(6, is_mixed=False),
    LayoutLevel(16, is_mixed=False),
    LayoutLevel(40, is_mixed=False),
    LayoutLevel(24, is_mixed=True),
    LayoutLevel(60, is_mixed=True),
    LayoutLevel(160, is_mixed=True),
    LayoutLevel(inf, is_mixed=True),
]


@dataclass(slots=True)
class Mark:
    """One or several items, with the positions of their mark and label."""

    items: Sequence[Item]
    left: float
    right: float
    kind: Tone
    label: str
    row: int = 0
    label_row: int = 0
    label_x: float | None = None  # left end; None if not drawn


@dataclass(slots=True)
class PlacedLane:
    """A timeline lane with its marks, ready to draw."""

    lane: TimelineLane
    points: list[Mark]
    spans: list[Mark]
    point_rows: int = 0
    span_rows: int = 0
    label_rows: int = 0
    is_crowded: bool = False

    @property
    def marks(self) -> int:
        return sum(1 if is_solid(mark) else len(mark.items) for mark in (*self.points, *self.spans))


@dataclass(frozen=True, slots=True)
class Field:
    """The drawing area: time scale, edges, and the position of the current time, which labels should not cover."""

    scale: Scale
    left: float
    right: float
    now: float

    def holds(self, extent: Extent) -> bool:
        return self.left <= extent[0] and extent[1] <= self.right

    def is_clear(self, extent: Extent) -> bool:
        return extent[1] + 3 <= self.now or self.now + 3 <= extent[0]


def place(lane: TimelineLane, field_: Field, texts: TimelineTexts, coarsest: int) -> PlacedLane:
    """Return the marks of `lane` in rows, at the finest readable level that is at least as coarse as `coarsest`."""
    for level in LEVELS[coarsest:]:
        placed = PlacedLane(lane, _points(lane, field_.scale, texts, level), _spans(lane, field_.scale, texts, level))
        _put_points(placed, field_)
        _put_spans(placed)
        _put_labels(placed, field_)
        if not placed.is_crowded:
            break
    return placed


def is_solid(mark: Mark) -> bool:
    """Return whether a mark is one shape; otherwise it is a line with each of its items on it."""
    return len(mark.items) == 1 or isinstance(mark.items[0], TimelineSpan) or _is_dense(mark)


def _is_dense(mark: Mark) -> bool:
    return (mark.right - mark.left) / (len(mark.items) - 1) < _APART_PX + 4


def _chains(
    items: Iterable[Item], level: LayoutLevel, x: Callable[[Item], float], near: Callable[[Item], float]
) -> list[list[Item]]:
    """Group items of the same kind, and the same label unless mixed, into runs of nearby items."""
    latest: dict[tuple[str, str], list[Item]] = {}
    chains = []
    for item in sorted(items, key=lambda item: item.since):
        key = (item.kind.value, "" if level.is_mixed or isinstance(item, TimelineSpan) else item.word)
        chain = latest.get(key)
        if chain is None or x(item) - x(chain[-1]) >= near(item):
            chain = latest[key] = []
            chains.append(chain)
        chain.append(item)
    return chains


def _points(lane: TimelineLane, scale: Scale, texts: TimelineTexts, level: LayoutLevel) -> list[Mark]:
    """Return points as marks; a label that repeats before its end is drawn once, for a line of points."""
    room = max((scale.right - scale.left) * 0.4, _LABEL_PX)

    def near(item: Item) -> float:
        return level.near_px if level.is_mixed else max(level.near_px, width_of(cut(word_of(item), room)) + 36)

    points = [item for item in lane.items if isinstance(item, Point)]
    return [
        Mark(
            items=chain,
            left=scale.x(chain[0].since),
            right=scale.x(chain[-1].since),
            kind=chain[0].kind,
            label=cut(texts.together(lane, chain), room),
        )
        for chain in _chains(points, level, lambda item: scale.x(item.since), near)
    ]


def end_of(item: Item, scale: Scale) -> float:
    """Return the end position of a span; the edge for an open span, which the renderer cuts at the current time."""
    return scale.right if isinstance(item, Point) or item.end is None else scale.x(item.end)


def _spans(lane: TimelineLane, scale: Scale, texts: TimelineTexts, level: LayoutLevel) -> list[Mark]:
    room = max((scale.right - scale.left) * 0.5, _LABEL_PX)
    spans = [item for item in lane.items if isinstance(item, TimelineSpan)]
    marks = []
    for chain in _chains(spans, level, lambda item: scale.x(item.since), lambda _: level.near_px):
        left, right = scale.x(chain[0].since), max(end_of(item, scale) for item in chain)
        label = cut(texts.together(lane, chain), room)
        marks.append(Mark(chain, left, max(right, left + 3), chain[0].kind, label))
    return marks


def _put_points(placed: PlacedLane, field_: Field) -> None:
    """Place each mark in the first row with space for it and its label that leaves the current time visible."""
    rows: list[list[Extent]] = [[] for _ in range(_POINT_ROWS)]
    for mark in placed.points:
        glyph = (mark.left - _MARK_PX, mark.right + _MARK_PX)
        tries = [way for row in range(_POINT_ROWS) for way in _ways(mark, row)]
        fitting = [way for way in tries if field_.holds(way.label) and _has_room(rows, way, glyph)]
        fitting.sort(key=lambda way: not field_.is_clear(way.label))
        if fitting:
            way = fitting[0]
            mark.row, mark.label_row, mark.label_x = way.row, way.label_row, way.label[0]
            rows[way.label_row].append(way.label)
        else:  # see its title
            mark.row = next((row for row in range(_POINT_ROWS) if _fits(rows[row], glyph)), _POINT_ROWS - 1)
            placed.is_crowded = placed.is_crowded or bool(mark.label)
        rows[mark.row].append(glyph)
    used = [max(mark.row, mark.label_row) + 1 for mark in placed.points]
    placed.point_rows = max(used, default=0)


class _LabelPosition(NamedTuple):
    row: int
    label_row: int
    label: Extent


def _ways(mark: Mark, row: int) -> list[_LabelPosition]:
    """Return the possible label positions of a mark: right, left, or below a long one."""
    width, gap = width_of(mark.label), _MARK_PX + 4
    right, left = mark.right + gap, mark.left - gap - width
    ways = [_LabelPosition(row, row, (right, right + width)), _LabelPosition(row, row, (left, left + width))]
    if row + 1 < _POINT_ROWS and mark.right - mark.left >= width:
        ways.append(_LabelPosition(row, row + 1, (mark.left, mark.left + width)))
    return ways


def _has_room(rows: Sequence[Sequence[Extent]], position: _LabelPosition, glyph: Extent) -> bool:
    return _fits(rows[position.row], glyph) and _fits(rows[position.label_row], position.label)


def _fits(extents: Sequence[Extent], extent: Extent) -> bool:
    return all(extent[0] >= right + _GAP_PX or extent[1] + _GAP_PX <= left for left, right in extents)


def _put_spans(placed: PlacedLane) -> None:
    ends: list[float] = []
    for mark in placed.spans:
        row = next((row for row, end in enumerate(ends) if end <= mark.left + 0.5), len(ends))
        ends[row : row + 1] = [mark.right]
        mark.row = row
    placed.span_rows = len(ends)
    placed.is_crowded = placed.is_crowded or len(ends) > _SPAN_ROWS


def _put_labels(placed: PlacedLane, field_: Field) -> None:
    """Place the labels of spans below them, most urgent and then latest first, if space permits."""
    rows: list[list[Extent]] = [[] for _ in range(_LABEL_ROWS)]
    for mark in sorted(placed.spans, key=lambda mark: (_SEVERITY.index(mark.kind), -mark.left)):
        width = width_of(mark.label)
        starts = [mark.left, mark.right - width, field_.now + 6, field_.now - 6 - width, field_.right - width]
        near = [at for at in starts if at + width > mark.left - _GAP_PX and at < mark.right + _GAP_PX]
        tries = [(row, (at, at + width)) for row in range(_LABEL_ROWS) for at in near]
        fitting = [(row, extent) for row, extent in tries if field_.holds(extent) and _fits(rows[row], extent)]
        fitting.sort(key=lambda way: not field_.is_clear(way[1]))
        if mark.label and fitting:
            row, extent = fitting[0]
            mark.label_row, mark.label_x = row, extent[0]
            rows[row].append(extent)
    placed.label_rows = max((mark.label_row + 1 for mark in placed.spans if mark.label_x is not None), default=0)
