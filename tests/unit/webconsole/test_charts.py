"""Charts: an axis from zero in round numbers, what is not over shown as such, and no word upon another."""

from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.webconsole.charts import (
    Bar,
    BarKind,
    Series,
    Tick,
    bars,
    lines,
    midnights,
    months,
    round_ticks,
    standouts,
)
from birthmark.webconsole.charts.horizontal_share_bars import ProportionBar, lanes
from birthmark.webconsole.svg import NARROW, WIDE, Size, Tone, cut, for_each, local, width_of
from support.console.drawings import HOSTILE, SIZES, TONES, check, elements, read, texts, titles

FOREIGN = st.text(st.characters(), max_size=60) | st.just(HOSTILE)
COUNTS = st.lists(st.integers(0, 20) | st.integers(0, 10**12), max_size=60)


def number(value: float) -> str:
    return f"{value:,.0f}"


def a_chart(values: list[int], *, size: Size = WIDE, ticks: list[Tick] | None = None) -> str:
    return bars(
        [Bar(value, f"week {index}: {value}") for index, value in enumerate(values)],
        name="ends",
        title="Certificates by week of expiry",
        desc="",
        unit="certificates",
        number=number,
        size=size,
        ticks=ticks or [],
        empty="None ends.",
    )


def strips(*series: Series, size: Size = WIDE, unfinished: str = "", ticks: list[Tick] | None = None) -> str:
    return lines(
        series,
        name="hours",
        title="Per hour",
        desc="",
        number=number,
        size=size,
        ticks=ticks or [],
        unfinished=unfinished,
        empty="Nothing was counted.",
    )


@pytest.mark.parametrize(
    ("maximum", "ticks"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (401, [0, 200, 400, 600]),
        (3, [0, 1, 2, 3]),
        (7, [0, 2, 4, 6, 8]),
        (3028, [0, 1000, 2000, 3000, 4000]),
        (9400, [0, 5000, 10_000]),
        (48_212_000, [0, 20_000_000, 40_000_000, 60_000_000]),
    ],
)
def test_an_axis_counts_in_round_numbers_from_zero(maximum: int, ticks: list[int]) -> None:
    assert round_ticks(maximum) == ticks


@given(st.floats(0, 1e15) | st.integers(0, 10**15), st.integers(2, 4))
def test_every_axis_covers_its_maximum_in_few_round_steps_and_wastes_less_than_two_thirds(
    maximum: float, most: int
) -> None:
    ticks = round_ticks(maximum, most)
    steps = {later - earlier for earlier, later in pairwise(ticks)}
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= most + 1
    assert ticks[-1] >= maximum
    assert ticks[-1] < 3 * maximum + 2
    assert len(steps) == 1
    assert str(steps.pop()).rstrip("0") in {"1", "2", "5"}


def test_a_batch_that_ends_together_stands_out_of_its_neighbors() -> None:
    assert standouts([310, 295, 9400, 320, 280, 301]) == [2]


def test_a_batch_over_two_weeks_stands_out_in_both() -> None:
    assert standouts([300, 310, 305, 9000, 9400, 290, 300, 310]) == [3, 4]


@pytest.mark.parametrize("values", [[], [0, 0], [5], [5, 5, 5], [0, 1, 0, 0, 1, 0], [900, 1500, 1100, 1800, 700, 1300]])
def test_what_is_like_its_neighbors_does_not_stand_out(values: list[int]) -> None:
    assert standouts(values) in ([], [0] if values == [5] else [])


def test_a_fleet_that_ends_in_one_week_stands_out_though_it_has_no_neighbors() -> None:
    assert standouts([0, 0, 1200, 0]) == [2]


@given(COUNTS)
def test_only_a_minority_stands_out(values: list[int]) -> None:
    assert len(standouts(values)) <= max(1, len(values) // 2 + 1)


def test_a_bar_that_stands_out_says_its_number() -> None:
    assert texts(a_chart([300] * 10 + [9400] + [300] * 10), "number") == ["9,400"]


def test_two_that_stand_out_side_by_side_both_say_their_numbers() -> None:
    assert texts(a_chart([300] * 20 + [9000, 9400] + [300] * 20), "number") == ["9,400", "9,000"]


@given(COUNTS, st.sampled_from(SIZES), FOREIGN)
def test_bars_are_readable_whatever_they_count_and_are_called(values: list[int], size: Size, words: str) -> None:
    ticks = [Tick(index, words, is_major=index % 3 == 0) for index in range(0, len(values), 4)]
    kinds = dict.fromkeys(BarKind, words)
    given_bars = [
        Bar(value, words, list(BarKind)[index % 3], f"/c?{index}", words) for index, value in enumerate(values)
    ]
    svg = bars(
        given_bars,
        name="ends",
        title=words,
        desc=words,
        unit=words,
        number=number,
        size=size,
        ticks=ticks,
        kinds=kinds,
        empty=words,
    )
    check(svg)


def test_numbers_above_and_beside_bars_that_stand_out_keep_apart() -> None:
    svg = a_chart([11_937_969_925, 0, 0, 1, 1, 11_937_969_925], size=NARROW)
    check(svg)
    assert texts(svg, "number") == ["11,937,969,925", "11,937,969,925"]


def test_the_zero_line_and_the_unit_are_drawn() -> None:
    svg = a_chart([3, 4])
    assert len(elements(svg, "line", "zero")) == 1
    assert texts(svg, "unit") == ["certificates"]


def test_one_certificate_among_thousands_can_still_be_seen() -> None:
    heights = [float(bar.get("height", 0)) for bar in elements(a_chart([1, 9400, 0]), "rect", "bar")]
    assert len(heights) == 2
    assert min(heights) >= 1.5


def test_a_week_that_is_not_over_is_drawn_so_and_says_so() -> None:
    week = Bar(37, "this week: 37", BarKind.NOW, "/certificates?week=48", "The week is not over.")
    svg = bars([week, week], name="w", title="t", desc="", unit="u", number=number, size=WIDE)
    assert len(elements(svg, "rect", "bar", "now", "unfinished")) == 2
    assert titles(svg)[1] == "this week: 37\nThe week is not over."
    assert elements(svg, "a")[0].get("aria-label") == "this week: 37\nThe week is not over."


def test_a_chart_of_links_is_a_group_and_one_without_is_an_image() -> None:
    linked = bars([Bar(1, "one", link="/x")], name="w", title="t", desc="", unit="u", number=number, size=WIDE)
    assert read(linked).get("role") == "group"
    assert read(a_chart([1])).get("role") == "img"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "//evil.example", "/\\evil.example", "https://x", "", "/\n/x"])
def test_a_link_that_leaves_the_server_is_not_drawn(link: str) -> None:
    with pytest.raises(ValueError, match="must start with"):
        local(link)


@pytest.mark.parametrize("values", [[], [0, 0, 0]])
def test_where_there_is_nothing_the_axes_stand_and_a_sentence_says_so(values: list[int]) -> None:
    svg = a_chart(values)
    assert texts(svg, "empty") == ["None ends."]
    assert elements(svg, "line", "zero")


def test_months_begin_within_their_week() -> None:
    assert months(date(2026, 11, 23), 12) == [
        (8 / 7, date(2026, 12, 1)),
        (39 / 7, date(2027, 1, 1)),
        (10, date(2027, 2, 1)),
    ]


def test_a_month_that_begins_with_the_first_week_is_at_its_left_end() -> None:
    assert months(date(2026, 6, 1), 2) == [(0, date(2026, 6, 1))]


def test_days_begin_at_midnight() -> None:
    first = datetime(2026, 11, 20, 14, tzinfo=UTC)
    assert [at for at, _ in midnights(first, 48)] == [10, 34]


def test_of_too_many_months_every_other_is_said_but_the_year_always() -> None:
    ticks = [Tick(at, "2027" if at == 15 else "month", is_major=at == 15) for at in range(0, 53, 3)]
    said = [text for text in texts(a_chart([1] * 53, ticks=ticks)) if text in {"month", "2027"}]
    assert "2027" in said
    assert 4 <= len(said) < len(ticks)


VALUES = st.lists(st.none() | st.integers(0, 20) | st.floats(0, 1e12), max_size=50)


@given(st.lists(VALUES, max_size=4), st.sampled_from(SIZES), FOREIGN, st.booleans())
def test_lines_are_readable_whatever_they_count_and_are_called(
    values: list[list[float | None]], size: Size, words: str, is_over: bool
) -> None:
    series = [Series(words, words, each, TONES[index]) for index, each in enumerate(values)]
    ticks = [Tick(index, words) for index in range(0, 50, 24)]
    svg = lines(
        series,
        name="hours",
        title=words,
        desc=words,
        number=number,
        size=size,
        ticks=ticks,
        words=[words] * 30,
        unfinished="" if is_over else words,
        empty=words,
    )
    check(svg)


def test_each_series_has_a_strip_with_a_scale_of_its_own() -> None:
    svg = strips(Series("Renewals", "per hour", [4200, 4500]), Series("Refusals", "per hour", [3, 12]))
    assert len(elements(svg, "line", "zero")) == 2
    assert {"6,000", "15"} <= set(texts(svg))


def test_each_series_is_named_where_it_ends_with_its_latest_value_and_unit() -> None:
    said = texts(strips(Series("Renewals", "per hour", [4200, 4500], Tone.GOOD)))
    assert said.index("4,500 per hour") == said.index("Renewals") + 1


def test_the_latest_value_said_is_that_of_an_hour_which_is_over() -> None:
    assert "4,200 per hour" in texts(strips(Series("Renewals", "per hour", [4200, 9]), unfinished="not over"))


def test_the_hour_that_is_not_over_may_say_its_own_value() -> None:
    said = texts(strips(Series("Renewals", "per hour", [0, 312], Tone.GOOD, "{n} this hour"), unfinished="not over"))
    assert "312 this hour" in said
    assert "0 per hour" not in said


def test_the_hour_that_is_not_over_is_dashed_and_says_so() -> None:
    svg = strips(Series("Renewals", "per hour", [4200, 4300, 9]), unfinished="This hour is not over.")
    assert len(elements(svg, "path", "line", "unfinished")) == 1
    assert "This hour is not over." in titles(svg)
    assert not elements(strips(Series("Renewals", "per hour", [4200, 4300, 9])), "path", "unfinished")


def test_an_hour_of_which_nothing_is_known_is_a_gap() -> None:
    svg = strips(Series("Renewals", "per hour", [1, 2, None, 4, None, 6, 7]))
    assert len(elements(svg, "path", "line")) == 2
    assert len(elements(svg, "circle", "dot")) == 1


def test_a_peak_says_its_number() -> None:
    assert texts(strips(Series("Refusals", "per hour", [3, 5, 4, 140, 6, 2, 4])), "number") == ["140"]


@pytest.mark.parametrize("series", [(), (Series("Renewals", "per hour", [None, None]),)])
def test_lines_without_a_value_say_so(series: tuple[Series, ...]) -> None:
    assert texts(strips(*series), "empty") == ["Nothing was counted."]


@given(FOREIGN, st.floats(0, 400))
def test_a_text_is_cut_to_its_room(words: str, room: float) -> None:
    assert width_of(cut(words, room)) <= room + 0.01


def test_a_japanese_text_takes_a_square_for_each_character_and_its_spaces_stay() -> None:
    assert width_of("証明書") == 36
    assert cut("証明書\u3000更新", 200) == "証明書\u3000更新"


def test_one_drawing_of_each_size_is_made_of_which_the_widest_that_fits_is_shown() -> None:
    page = read(for_each(lambda size: a_chart([1], size=size), (WIDE, NARROW)))
    assert [part.get("class") for part in page] == ["for-narrow until-530", "for-wide from-530"]


def test_lanes_are_as_long_as_their_part_and_say_how_many() -> None:
    given = [
        ProportionBar("queued", 75, Tone.USUAL, "not begun: 75 of 100"),
        ProportionBar("<failed>", 25, Tone.BAD, "failed: 25 of 100"),
        ProportionBar("begun", 0, Tone.INFO, "begun: none"),
    ]
    for size in (NARROW, WIDE):
        drawn = lanes(given, total=100, name="job", title="How far", desc="", number=number, size=size)
        check(drawn)
        assert {"queued", "<failed>", "75", "25"} <= {*texts(drawn)}
        assert "failed: 25 of 100" in drawn
    assert read(lanes([], total=0, name="job", title="t", desc="", number=number, size=NARROW)) is not None
