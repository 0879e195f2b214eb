import pytest
import typer

from birthmark.cli.options.duration import DurationParser


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("30", 30), ("0.5", 0.5), ("500ms", 0.5), ("2m", 120)])
def test_a_duration_or_a_bare_number_is_seconds(text: str, seconds: float) -> None:
    assert DurationParser()(text) == seconds


@pytest.mark.parametrize(("text", "minutes"), [("30m", 30), ("30", 30), ("1h", 60)])
def test_an_option_of_minutes_takes_a_duration_or_a_bare_number_of_minutes(text: str, minutes: int) -> None:
    assert DurationParser("m", is_whole=True)(text) == minutes


@pytest.mark.parametrize("text", ["soon", "", "-1", "1w", "1e3", "0.01s", "2h"])
def test_text_outside_the_grammar_or_the_bounds_is_rejected(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        DurationParser(minimum=0.1, maximum=3600)(text)


def test_a_part_of_a_unit_is_rejected_where_the_protocol_counts_whole_units() -> None:
    with pytest.raises(typer.BadParameter, match="must be a multiple of 1m"):
        DurationParser("m", is_whole=True)("90s")
