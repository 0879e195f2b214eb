"""From when on to look, as people write it."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from birthmark.cli.output.follow_mode import parse_since
from support.fakes import NOON, FakeClock


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("10m", NOON - timedelta(minutes=10)),
        ("90s", NOON - timedelta(seconds=90)),
        ("2h", NOON - timedelta(hours=2)),
        ("30d", NOON - timedelta(days=30)),
        ("2026-11-21T10:00:00Z", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("2026-11-21T12:00:00+02:00", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("beginning", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(text: str, at: datetime) -> None:
    assert parse_since(text, FakeClock()) == at


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "0s", "tomorrow", "999999999d", "2026-13-01"])
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_since(text, FakeClock())
