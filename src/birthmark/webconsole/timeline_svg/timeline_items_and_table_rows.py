"""Items of a timeline, and their table rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from birthmark.webconsole.svg import Tone
from birthmark.webconsole.timeline_svg.time_axis import Unit


@dataclass(frozen=True, slots=True)
class Point:
    """An event: its label is next to its mark, its exact text in the tooltip."""

    at: datetime
    word: str
    kind: Tone = Tone.USUAL
    link: str | None = None
    exact: str = ""

    @property
    def since(self) -> datetime:
        return self.at


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """A period; `end` is None if its end is unknown."""

    since: datetime
    end: datetime | None
    label: str = ""
    kind: Tone = Tone.USUAL
    link: str | None = None
    exact: str = ""


Item = Point | TimelineSpan


def word_of(item: Item) -> str:
    """Return the label of an item; empty if it has none."""
    return item.word if isinstance(item, Point) else item.label


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """A lane of related items; marks for several items have its `link`.

    `several` formats their number if they have different labels: "1000 certificates".
    """

    label: str
    items: Sequence[Item]
    link: str | None = None
    several: Callable[[int], str] | None = None


@dataclass(frozen=True, slots=True)
class TimelineTexts:
    """Texts of a timeline in the user's language."""

    now: str
    still: str  # for open spans
    several: Callable[[int, str], str]  # "3 x renewed"; or "3 events", without a word, for a mix
    when: Callable[[datetime], str]  # exact; titles and rows
    tick: Callable[[datetime, Unit, bool], str]  # text at a tick; the first includes its year or day
    empty: str = ""

    def exactly(self, item: Item) -> str:
        """Return the exact text of an item with its time."""
        words = item.exact or word_of(item)
        return f"{self.span_of(item)}: {words}" if words else self.span_of(item)

    def together(self, lane: TimelineLane, items: Sequence[Item]) -> str:
        """Return the label of a mark for `items` of `lane`."""
        said = {word_of(item) for item in items}
        word = said.pop() if len(said) == 1 else ""
        if len(items) == 1:
            return word
        return lane.several(len(items)) if lane.several and not word else self.several(len(items), word)

    def span_of(self, item: Item) -> str:
        return self.when(item.since) + (f" \u2013 {self.until(item)}" if isinstance(item, TimelineSpan) else "")

    def until(self, item: Item) -> str:
        """Return the end of a span, or that it continues; empty for a point."""
        if isinstance(item, Point):
            return ""
        return self.still if item.end is None else self.when(item.end)


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """An item as a table row; untrusted text is unescaped, and the template escapes it."""

    lane: str
    since: str
    until: str
    word: str
    exact: str
    kind: Tone
    link: str | None


def rows(lanes: Sequence[TimelineLane], *, texts: TimelineTexts) -> list[TimelineRow]:
    """Return every item of `lanes` as a table row, latest first."""
    items = [(item.since, lane.label, item) for lane in lanes for item in lane.items]
    items.sort(key=lambda entry: entry[0], reverse=True)
    return [
        TimelineRow(
            lane=lane,
            since=texts.when(since),
            until=texts.until(item),
            word=word_of(item),
            exact=item.exact,
            kind=item.kind,
            link=item.link,
        )
        for since, lane, item in items
    ]
