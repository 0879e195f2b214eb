"""What a life is made of, and the same as the rows of a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from birthmark.webconsole.life.time_axis import Unit
from birthmark.webconsole.svg import Tone


@dataclass(frozen=True, slots=True)
class Point:
    """Something that happened: its word stands beside its mark, its exact text is told on asking."""

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
    """Something that lasted, or lasts: `end` is None while nobody knows its end."""

    since: datetime
    end: datetime | None
    label: str = ""
    kind: Tone = Tone.USUAL
    link: str | None = None
    exact: str = ""


Item = Point | TimelineSpan


def word_of(item: Item) -> str:
    """Return what stands beside an item, if anything."""
    return item.word if isinstance(item, Point) else item.label


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """What belongs together; marks that stand for several items have its `link`.

    `several` says how many they are where their own words do not: "1000 certificates".
    """

    label: str
    items: Sequence[Item]
    link: str | None = None
    several: Callable[[int], str] | None = None


@dataclass(frozen=True, slots=True)
class TimelineTexts:
    """What a life says, in the reader's language."""

    now: str
    still: str  # of a span without an end
    several: Callable[[int, str], str]  # "3 x renewed"; without a word, of different things: "3 events"
    when: Callable[[datetime], str]  # exact, in titles and rows
    tick: Callable[[datetime, Unit, bool], str]  # what begins there; the first says its year or day too
    empty: str = ""

    def exactly(self, item: Item) -> str:
        """Return the item in exact words with its time."""
        words = item.exact or word_of(item)
        return f"{self.span_of(item)}: {words}" if words else self.span_of(item)

    def together(self, lane: TimelineLane, items: Sequence[Item]) -> str:
        """Return what stands beside a mark for `items` of `lane`."""
        said = {word_of(item) for item in items}
        word = said.pop() if len(said) == 1 else ""
        if len(items) == 1:
            return word
        return lane.several(len(items)) if lane.several and not word else self.several(len(items), word)

    def span_of(self, item: Item) -> str:
        return self.when(item.since) + (f" \u2013 {self.until(item)}" if isinstance(item, TimelineSpan) else "")

    def until(self, item: Item) -> str:
        """Return when a span ends, or that it goes on; nothing for a point."""
        if isinstance(item, Point):
            return ""
        return self.still if item.end is None else self.when(item.end)


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """An item as a table shows it: foreign text as it came, which the template escapes."""

    lane: str
    since: str
    until: str
    word: str
    exact: str
    kind: Tone
    link: str | None


def rows(lanes: Sequence[TimelineLane], *, words: TimelineTexts) -> list[TimelineRow]:
    """Return every item of `lanes` as a row, the latest first."""
    items = [(item.since, lane.label, item) for lane in lanes for item in lane.items]
    items.sort(key=lambda entry: entry[0], reverse=True)
    return [
        TimelineRow(
            lane=lane,
            since=words.when(since),
            until=words.until(item),
            word=word_of(item),
            exact=item.exact,
            kind=item.kind,
            link=item.link,
        )
        for since, lane, item in items
    ]
