"""What a server says about when: come back then, renew then."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.est.client import _retry_after_s
from birthmark.est.wire import parse_window

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
START, END = datetime(2026, 10, 21, 7, tzinfo=UTC), datetime(2026, 10, 21, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": "Wed, 21 Oct 2026 07:30:00 GMT", "date": DATE}, 120),
        ({"retry-after": "Wed, 21 Oct 2026 07:00:00 GMT", "date": DATE}, 0),
        ({"retry-after": DATE}, None),
        ({"retry-after": "soon", "date": DATE}, None),
        ({"retry-after": f"Wed, 21 Oct {'2' * 50} 07:28:00 GMT", "date": DATE}, None),
        ({}, None),
    ],
    ids=[
        "seconds",
        "a date",
        "a date that is over",
        "a date without a now",
        "nonsense",
        "a year of fifty digits",
        "nothing",
    ],
)
def test_a_date_is_counted_by_the_servers_own_clock(headers: dict[str, str], seconds: int | None) -> None:
    assert _retry_after_s(headers) == seconds


def test_a_window_is_two_times_with_a_slash() -> None:
    assert parse_window("2026-10-21T07:00:00Z/2026-10-21T09:00:00+00:00") == (START, END)


@pytest.mark.parametrize("text", [None, "", "/", "2026-10-21T07:00:00Z", "2026-10-21/2026-10-22", "b/a" * 100])
def test_anything_else_is_no_window(text: str | None) -> None:
    assert parse_window(text) is None


@given(st.text(), st.text())
def test_any_header_is_read_or_left(text: str, other: str) -> None:
    window = parse_window(f"{text}/{other}")
    assert window is None or window[0] <= window[1]
    seconds = _retry_after_s({"retry-after": text, "date": other})
    assert seconds is None or seconds >= 0


def test_a_window_that_ends_before_it_begins_is_none() -> None:
    assert parse_window(f"{END.isoformat()}/{(END - timedelta(1)).isoformat()}") is None
