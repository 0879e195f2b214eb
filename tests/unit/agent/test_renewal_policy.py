"""When to renew and when to try again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.agent.renewal_policy import (
    Renewal,
    RenewalSpan,
    chance_of,
    leaves_time,
    parse_span,
    renew_at,
    retry_pause,
    warn_at,
)
from support.fakes import NOON

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("80%", RenewalSpan(percent=80)),
        ("+1%", RenewalSpan(percent=1)),
        ("30min", RenewalSpan(duration=30 * MINUTE)),
        ("2day", RenewalSpan(duration=2 * DAY)),
    ],
)
def test_the_grammar_is_azures(text: str, span: RenewalSpan) -> None:
    assert parse_span(text) == span
    assert parse_span(str(span)) == span


@pytest.mark.parametrize(
    "text", ["0%", "100%", "0", "80 %", "-1%", "1.5day", "1year", "1hour", "0min", "PT1H", "", "%", "80"]
)
def test_everything_else_is_outside_the_grammar(text: str) -> None:
    assert parse_span(text) is None


def test_a_certificate_of_a_day_is_renewed_after_19_hours_and_12_minutes() -> None:
    assert renew_at(NOON, NOON + DAY, RenewalSpan(percent=80)) == NOON + timedelta(hours=19, minutes=12)
    assert RenewalSpan(percent=4).of(DAY) == timedelta(minutes=57, seconds=36)


def test_a_time_counts_back_from_expiry_and_never_before_the_beginning() -> None:
    assert renew_at(NOON, NOON + DAY, RenewalSpan(duration=30 * MINUTE)) == NOON + DAY - 30 * MINUTE
    assert renew_at(NOON, NOON + DAY, RenewalSpan(duration=2 * DAY)) == NOON
    assert renew_at(NOON, NOON + DAY, RenewalSpan(duration=999_999 * DAY)) == NOON
    assert renew_at(NOON, NOON, RenewalSpan(percent=80)) == NOON


@given(st.integers(1, 99), st.timedeltas(timedelta(0), 9999 * DAY))
def test_a_renewal_is_due_within_the_lifetime(percent: int, lifetime: timedelta) -> None:
    due = renew_at(NOON, NOON + lifetime, RenewalSpan(percent=percent))
    assert NOON <= due <= NOON + lifetime


def test_pauses_grow_from_a_minute_to_the_retry_and_stay_there() -> None:
    hour = 60 * MINUTE
    pauses = [retry_pause(failures, hour, 0.5) for failures in range(1, 9)]
    assert [pause // MINUTE for pause in pauses] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert retry_pause(10_000, hour, 0.5) == hour
    assert retry_pause(1, timedelta(seconds=0.8), 0.5) == timedelta(seconds=0.8)


@given(st.integers(0, 100), st.timedeltas(timedelta(seconds=1), 10 * DAY), st.floats(0, 1))
def test_jitter_stays_within_a_tenth(failures: int, retry: timedelta, chance: float) -> None:
    pause = retry_pause(failures, retry, chance)
    middle = retry_pause(failures, retry, 0.5)
    assert abs(pause - middle) <= retry * 0.1 + timedelta(microseconds=2)
    assert pause >= timedelta(seconds=0.1)


def test_no_retry_longer_than_the_time_that_is_left() -> None:
    assert leaves_time(Renewal(True, RenewalSpan(percent=80), RenewalSpan(percent=20)))
    assert not leaves_time(Renewal(True, RenewalSpan(percent=80), RenewalSpan(percent=21)))
    assert not leaves_time(Renewal(True, RenewalSpan(duration=DAY), RenewalSpan(duration=2 * DAY)))
    assert leaves_time(Renewal(True, RenewalSpan(duration=DAY), RenewalSpan(percent=50)))


def test_a_short_lived_certificate_is_warned_of_in_proportion() -> None:
    assert warn_at(NOON, NOON + DAY, Renewal()) == NOON + 0.88 * DAY
    assert warn_at(NOON, NOON + DAY, Renewal(True, RenewalSpan(percent=99), RenewalSpan(percent=1))) == NOON + DAY


def test_chance_is_between_nothing_and_certainty() -> None:
    assert chance_of(b"\0" * 4) == 0
    assert chance_of(b"\xff" * 4) == 1
