"""A device's life: all of it on one line of time, whatever happened to it, and readable."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.webconsole.svg import NARROW, Size, Tone
from birthmark.webconsole.timeline_svg import (
    Item,
    Point,
    TimelineLane,
    TimelineSpan,
    TimelineTexts,
    Unit,
    rows,
    timeline_svg,
)
from birthmark.webconsole.timeline_svg.timeline_renderer import MAX_BYTES
from support.console.drawings import HOSTILE, SIZES, TONES, check, elements, read, texts, titles

NOW = datetime(2026, 11, 25, 9, 41, tzinfo=UTC)
FULL = Size("full", 1040, 220)
FOREIGN = st.text(st.characters(), max_size=60) | st.just(HOSTILE)


def tick(moment: datetime, unit: Unit, is_first: bool) -> str:
    match unit:
        case Unit.YEAR:
            return f"{moment:%Y}"
        case Unit.MONTH:
            return f"{moment:%b %Y}" if is_first else f"{moment:%b}"
        case Unit.DAY:
            return f"{moment:%d %b}"
        case _:
            return f"{moment:%d %b %H:%M}" if is_first else f"{moment:%H:%M}"


def several(count: int, word: str) -> str:
    return f"{count} x {word}" if word else f"{count} events"


WORDS = TimelineTexts(
    now="now",
    still="goes on",
    several=several,
    when=lambda moment: f"{moment:%Y-%m-%d %H:%M}",
    tick=tick,
    empty="Nothing is known yet.",
)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def drawn(*lanes: TimelineLane, size: Size = FULL, words: TimelineTexts = WORDS) -> str:
    return timeline_svg(lanes, now=NOW, name="life", title="Its life", desc="", texts=words, size=size)


def a_lane(*items: Item, label: str = "Chip") -> TimelineLane:
    return TimelineLane(label, items)


def a_daily_renewer() -> list[TimelineLane]:
    """A device that has renewed daily for three years; once it was refused, and came back."""
    certificates = [
        TimelineSpan(ago(1000 - day), ago(997 - day), "", Tone.USUAL, f"/c/{day}", f"{day:040x}") for day in range(999)
    ]
    certificates.append(TimelineSpan(ago(0.2), NOW + timedelta(days=3), "ends in 3 days", Tone.GOOD, "/c/now"))
    renewals = [Point(ago(1000 - day), "renewed", Tone.GOOD, f"/c/{day}") for day in range(1000)]
    trouble = [Point(ago(599), "refused", Tone.BAD), Point(ago(598), "came back", Tone.WARN)]
    return [
        TimelineLane("Certificates", certificates, "/certificates", lambda count: f"{count} certificates"),
        TimelineLane("Renewals", [*renewals, *trouble], "/certificates"),
    ]


MOMENTS = st.floats(0, 4000).map(ago) | st.floats(-400, 0).map(ago) | st.floats(0, 1).map(ago)
LINKS = st.sampled_from([None, "/x", "/certificates?serial=" + "7f" * 20])


def points(words: st.SearchStrategy[str]) -> st.SearchStrategy[Point]:
    return st.builds(Point, MOMENTS, words, st.sampled_from(TONES), LINKS, FOREIGN)


@st.composite
def spans(draw: st.DrawFn) -> TimelineSpan:
    since = draw(MOMENTS)
    lasts = draw(st.none() | st.floats(0, 10_000))
    end = None if lasts is None else since + timedelta(days=lasts)
    return TimelineSpan(since, end, draw(FOREIGN), draw(st.sampled_from(TONES)), draw(LINKS), draw(FOREIGN))


ITEMS = st.lists(points(st.sampled_from(["renewed", "refused", "更新"]) | FOREIGN) | spans(), max_size=25)
LANES = st.lists(st.builds(TimelineLane, FOREIGN, ITEMS, LINKS), max_size=6)


@given(LANES, st.sampled_from(SIZES))
def test_no_label_lies_upon_another_whatever_a_life_was(lanes: list[TimelineLane], size: Size) -> None:
    svg = drawn(*lanes, size=size)
    check(svg)
    assert len(svg.encode()) <= MAX_BYTES


@pytest.mark.parametrize("size", SIZES)
def test_three_years_of_daily_renewals_are_one_mark_that_says_how_many(size: Size) -> None:
    svg = drawn(*a_daily_renewer(), size=size)
    check(svg)
    assert len(svg.encode()) <= MAX_BYTES
    assert {"1000 x renewed", "999 certificates", "ends in 3 days"} <= set(texts(svg))


def test_what_went_wrong_is_never_hidden_among_what_did_not() -> None:
    svg = drawn(*a_daily_renewer())
    assert {"refused", "came back"} <= set(texts(svg))
    assert len(elements(svg, "path", "mark", "bad")) == 1


def test_a_mark_for_several_tells_the_first_and_last_and_goes_to_all_of_them() -> None:
    svg = drawn(TimelineLane("Renewals", [Point(ago(900 - day), "renewed", link="/one") for day in range(900)], "/all"))
    [told] = [title for title in titles(svg) if title.startswith("900 x renewed")]
    assert told.splitlines()[1] == "2024-06-08 09:41: renewed"
    assert told.splitlines()[-1] == "2026-11-24 09:41: renewed"
    assert [link.get("href") for link in elements(svg, "a")] == ["/all"]


def test_what_can_still_be_told_apart_keeps_its_own_link_though_its_word_is_said_once() -> None:
    svg = drawn(a_lane(*(Point(ago(30 * month), "renewed", link=f"/{month}") for month in range(12))))
    assert [link.get("href") for link in elements(svg, "a")] == [f"/{month}" for month in reversed(range(12))]
    assert texts(svg).count("12 x renewed") == 1


def test_points_of_different_words_at_one_moment_stand_below_each_other() -> None:
    svg = drawn(
        a_lane(Point(ago(300), "made"), Point(ago(299), "taken in"), Point(ago(298), "proven"), Point(ago(9), "used"))
    )
    rows_of = [text.get("y") for text in elements(svg, "text", "of") if text.text != "used"]
    assert len(set(rows_of)) == 3


def test_certificates_that_overlap_lie_in_different_rows() -> None:
    svg = drawn(a_lane(*(TimelineSpan(ago(since), ago(since - 30)) for since in (300, 279, 258))))
    tops = [bar.get("y") for bar in elements(svg, "rect", "span")]
    assert tops[0] == tops[2] != tops[1]


def test_what_is_still_to_come_of_a_certificate_is_drawn_apart() -> None:
    svg = drawn(a_lane(TimelineSpan(ago(20), NOW + timedelta(days=3))))
    [future] = elements(svg, "rect", "future")
    [line] = elements(svg, "line", "today")
    assert future.get("x") == line.get("x1")


def test_a_certificate_without_an_end_squeezes_no_life_and_has_an_arrow() -> None:
    svg = drawn(a_lane(TimelineSpan(ago(400), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))))
    [past] = [bar for bar in elements(svg, "rect", "span") if "future" not in bar.get("class", "")]
    assert float(past.get("width", 0)) > FULL.width / 2
    assert len(elements(svg, "path", "arrow")) == 1


def test_a_connection_that_goes_on_ends_at_now_and_says_so() -> None:
    svg = drawn(a_lane(TimelineSpan(ago(20), None, link="/x")))
    assert not elements(svg, "rect", "future")
    assert elements(svg, "circle", "open")
    assert "2026-11-05 09:41 \u2013 goes on" in titles(svg)


def test_a_kind_is_told_by_shape_too() -> None:
    svg = drawn(a_lane(*(Point(ago(index * 50), kind.value, kind) for index, kind in enumerate(TONES))))
    shapes = {kind: elements(svg, tag, "mark", kind) for kind in (Tone.WARN, Tone.BAD) for tag in ("path",)}
    assert shapes[Tone.WARN][0].get("d") != shapes[Tone.BAD][0].get("d")
    assert elements(svg, "circle", "mark", "good")


@pytest.mark.parametrize(
    ("lived", "said"),
    [
        (timedelta(hours=2), "08:30"),
        (timedelta(days=2), "24 Nov"),
        (timedelta(days=25), "12 Nov"),
        (timedelta(days=420), "Apr"),
        (timedelta(days=3000), "2024"),
    ],
)
def test_the_axis_counts_in_what_the_life_was_long(lived: timedelta, said: str) -> None:
    assert said in texts(drawn(a_lane(Point(NOW - lived, "made"))))


def test_the_axis_is_that_of_the_time_zone_of_now() -> None:
    now = NOW.astimezone(timezone(timedelta(hours=9)))
    svg = timeline_svg([a_lane(Point(ago(2), "made"))], now=now, name="l", title="t", desc="", texts=WORDS, size=FULL)
    midnight = next(text for text in elements(svg, "text") if text.text == "25 Nov")
    [line] = elements(svg, "line", "today")
    assert float(line.get("x1", 0)) - float(midnight.get("x", 0)) > FULL.width / 6  # 18:41 after it, not 9:41


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "lanes", [[], [TimelineLane("Chip", [])], [TimelineLane("Chip", []), TimelineLane("Record", [])]]
)
def test_of_a_device_without_a_life_that_is_said(lanes: Sequence[TimelineLane], size: Size) -> None:
    svg = drawn(*lanes, size=size)
    check(svg)
    assert texts(svg, "empty") == ["Nothing is known yet."]


def test_on_a_phone_lanes_are_named_above_themselves_and_have_the_whole_width() -> None:
    svg = drawn(a_lane(Point(ago(300), "made")), size=NARROW)
    check(svg)
    [mark] = elements(svg, "circle", "mark")
    assert float(mark.get("cx", 0)) < 10


def test_a_life_with_links_is_a_group_to_who_listens() -> None:
    assert read(drawn(a_lane(Point(ago(3), "made", link="/x")))).get("role") == "group"
    assert read(drawn(a_lane(Point(ago(3), "made")))).get("role") == "img"


def test_a_link_that_leaves_the_server_is_refused() -> None:
    with pytest.raises(ValueError, match="must start with"):
        drawn(a_lane(Point(ago(3), "made", link="javascript:alert(1)")))


def test_the_table_leaves_nothing_out_and_begins_with_the_latest() -> None:
    table = rows(a_daily_renewer(), texts=WORDS)
    assert len(table) == 2002
    assert table[0].word == "ends in 3 days"
    assert table[0].until == "2026-11-28 09:41"


def test_a_row_says_what_goes_on_and_keeps_text_as_it_came() -> None:
    [row] = rows(
        [TimelineLane("Connected", [TimelineSpan(ago(1), None, HOSTILE, Tone.GOOD, "/x", "exact")])], texts=WORDS
    )
    assert (row.lane, row.until, row.word, row.exact, row.link) == ("Connected", "goes on", HOSTILE, "exact", "/x")
