"""One grammar of durations for commands, configurations and scenarios."""

from datetime import timedelta

import pytest

from birthmark.durations import duration_of, format_duration, lifetime_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("20s", 20), ("10m", 600), ("30min", 1800), ("1.5h", 5400), ("365d", 31_536_000), ("2 h", 7200)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration_of(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "year", "-1d", "1w", "1d 2h", "999999999999d", "999999999d9", "1e3s"])
def test_what_is_none_is_told_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="20s, 30min, 12h or 365d"):
        duration_of(text)


@pytest.mark.parametrize("text", ["0s", "0d", "250ms"])
def test_what_lives_lives_a_second_at_least(text: str) -> None:
    with pytest.raises(ValueError, match="has to last"):
        lifetime_of(text)


@pytest.mark.parametrize("text", ["30d", "12h", "36h", "90min", "45s", "0.25s"])
def test_a_duration_is_written_as_it_was_typed(text: str) -> None:
    assert format_duration(duration_of(text)) == text
