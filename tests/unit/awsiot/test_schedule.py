"""When a job begins, ends and may go out."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.rules import job_schedule
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.jobs import JobConfiguration, SchedulingConfig

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)  # a Thursday


def at(text: str) -> datetime:
    return job_schedule.parse_moment(text, "startTime")


def settings(**config: Any) -> JobConfiguration:
    return msgspec.convert({"schedulingConfig": config}, JobConfiguration)


def windows(*given: tuple[str, int], **more: Any) -> JobConfiguration:
    return settings(maintenanceWindows=[{"startTime": one, "durationInMinutes": long} for one, long in given], **more)


@pytest.mark.parametrize(
    "text",
    ["2026-01-31 18:00", "2026-01-31T18:00Z", "2026-01-31T18:00:00.000Z", "2026-01-31 19:00+01:00", "2026-01-31T18:00"],
)
def test_a_time_is_of_utc_unless_it_says_otherwise(text: str) -> None:
    assert at(text) == datetime(2026, 1, 31, 18, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "2026-01-31", "2026-13-01 00:00", "1767225600", "2026-01-31 18:00 UTC"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BodyInvalidError):
        at(text)


@pytest.mark.parametrize(
    ("cron", "following"),
    [
        ("cron(0 18 ? * MON *)", "2026-01-05 18:00"),
        ("0 18 ? * 2 *", "2026-01-05 18:00"),
        ("cron(0 18 ? * MON-FRI *)", "2026-01-01 18:00"),
        ("cron(0 0 * * ? *)", "2026-01-02 00:00"),
        ("cron(0 12 * * ? *)", "2026-01-02 12:00"),  # noon itself is not after noon
        ("cron(15/20 12 * * ? *)", "2026-01-01 12:15"),
        ("cron(30 2 1,15 * ? *)", "2026-01-15 02:30"),
        ("cron(0 9 L * ? *)", "2026-01-31 09:00"),
        ("cron(0 9 ? * 5L *)", "2026-01-29 09:00"),
        ("cron(0 9 ? * THUL *)", "2026-01-29 09:00"),
        ("cron(0 9 ? * 3#2 *)", "2026-01-13 09:00"),
        ("cron(0 0 29 FEB ? *)", "2028-02-29 00:00"),
        ("cron(0 0 1 1 ? 2028-2030)", "2028-01-01 00:00"),
        ("0 0 ? * SUN", "2026-01-04 00:00"),
    ],
)
def test_a_window_recurs_as_its_expression_says(cron: str, following: str) -> None:
    assert job_schedule.parse_cron(cron).after(NOON) == at(following)


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "cron()",
        "cron(* * * * * *)",
        "cron(0 18 ? * ? *)",
        "cron(60 0 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 0 32 * ? *)",
        "cron(0 0 0 * ? *)",
        "cron(0 0 * 13 ? *)",
        "cron(0 0 ? * 8 *)",
        "cron(0 0 5-1 * ? *)",
        "cron(0/0 0 * * ? *)",
        "cron(1W 0 * * ? *)",
        "cron(0 0 15W * ? *)",
        "cron(0 0 ? * 1#6 *)",
        "cron(² 0 * * ? *)",
        "rate(5 minutes)",
    ],
)
def test_what_is_no_expression_is_refused(cron: str) -> None:
    with pytest.raises(BodyInvalidError):
        job_schedule.parse_cron(cron)


def first_by_looking(cron: job_schedule.Cron, moment: datetime) -> datetime | None:
    """Return what `after` returns, minute by minute."""
    minute = moment.replace(second=0, microsecond=0)
    for _ in range(3 * 24 * 60):
        minute += timedelta(minutes=1)
        if cron.is_on(minute) and minute.hour in cron.hours and minute.minute in cron.minutes:
            return minute
    return None


@given(
    st.sampled_from(["* 0-22 ? * FRI *", "0/7 * * * ? *", "59 23 L * ? *", "30 5 29 2 ? 2028", "1,58 0/5 ? * 2#1 *"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2028, 12, 31)),  # noqa: DTZ001 - hypothesis adds the zone
)
def test_the_first_time_after_a_moment_is_that_which_looking_finds(cron: str, moment: datetime) -> None:
    parsed, at_once = job_schedule.parse_cron(cron), moment.replace(tzinfo=UTC)
    found, looked = parsed.after(at_once), first_by_looking(parsed, at_once)
    assert found == looked if looked is not None else found is None or found > at_once + timedelta(days=2)


def test_a_window_of_every_minute_costs_no_more_than_one_of_a_single_one() -> None:
    """By how many moments are looked at: a day has 1440."""
    every, looked = job_schedule.parse_cron("* 0-22 ? * FRI *"), 0

    class Counted(datetime):
        def replace(self, *args: Any, **more: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().replace(*args, **more)

    every.after(Counted(2026, 1, 2, 22, 59, tzinfo=UTC), days=2)  # a Friday, of which all is over
    assert looked < 10


def test_a_window_is_open_from_its_start_until_its_time_is_over() -> None:
    given = windows(("cron(0 12 * * ? *)", 30))
    for minutes, is_open in ((-1, False), (0, True), (29, True), (30, False), (24 * 60, True)):
        assert job_schedule.may_go_out(given, NOON + timedelta(minutes=minutes)) is is_open


def test_one_of_several_windows_is_enough_and_none_is_needed() -> None:
    given = windows(("cron(0 1 * * ? *)", 10), ("cron(50 11 * * ? *)", 20))
    assert job_schedule.may_go_out(given, NOON)
    assert job_schedule.may_go_out(JobConfiguration(), NOON)


def test_a_window_over_midnight_is_open_after_it() -> None:
    given = windows(("cron(30 23 * * ? *)", 60))
    assert job_schedule.may_go_out(given, at("2026-01-02 00:29"))
    assert not job_schedule.may_go_out(given, at("2026-01-02 00:30"))


def test_the_next_seven_openings_are_told_while_the_job_goes_on() -> None:
    given = windows(("cron(0 18 * * ? *)", 5), ("cron(0 6 * * ? *)", 5))
    found = list(job_schedule.openings(given, NOON))
    assert (len(found), found[:2]) == (7, [at("2026-01-01 18:00"), at("2026-01-02 06:00")])
    ends = windows(("cron(0 18 * * ? *)", 5), endTime="2026-01-03 00:00")
    assert list(job_schedule.openings(ends, NOON)) == [at("2026-01-01 18:00"), at("2026-01-02 18:00")]
    later = windows(("cron(0 18 * * ? *)", 5), startTime="2026-02-01 00:00")
    assert next(job_schedule.openings(later, NOON)) == at("2026-02-01 18:00")
    assert list(job_schedule.openings(JobConfiguration(), NOON)) == []


@pytest.mark.parametrize(
    ("config", "is_continuous"),
    [
        ({"startTime": "2026-01-01T12:29"}, False),
        ({"startTime": "2027-01-02T12:00"}, False),
        ({"endTime": "2026-01-01T12:29"}, False),
        ({"endTime": "2028-01-02T12:00"}, False),
        ({"startTime": "2026-01-02T12:00", "endTime": "2026-01-02T12:29"}, False),
        ({"startTime": "2026-01-02 12:00"}, False),
        ({"startTime": "2026-01-02T12:00:00"}, False),
        ({"endTime": "2026-01-02T12:00Z"}, False),
        ({"endBehavior": "CANCEL"}, False),
        ({"maintenanceWindows": [{"startTime": "cron(0 0 * * ? *)", "durationInMinutes": 5}]}, False),
        ({"maintenanceWindows": [{"startTime": "cron(0 0 30 2 ? *)", "durationInMinutes": 5}]}, True),
        ({"maintenanceWindows": [{"startTime": "cron(0 0 1 1 ? 2025)", "durationInMinutes": 5}]}, True),
        ({"maintenanceWindows": [{"startTime": "cron(0 0 * * ? *)", "durationInMinutes": 5}] * 8}, True),
    ],
)
def test_a_schedule_that_a_job_cannot_have_is_refused(config: dict[str, Any], is_continuous: bool) -> None:
    with pytest.raises(BodyInvalidError):
        job_schedule.check(msgspec.convert(config, SchedulingConfig), NOON, is_continuous=is_continuous)


def test_a_schedule_at_its_bounds_is_taken() -> None:
    config = {"startTime": "2026-01-01T12:30", "endTime": "2026-01-01T13:00", "endBehavior": "FORCE_CANCEL"}
    job_schedule.check(msgspec.convert(config, SchedulingConfig), NOON, is_continuous=False)
    assert job_schedule.starts_at(settings(**config)) == at("2026-01-01 12:30")
    assert not job_schedule.is_over(settings(**config), at("2026-01-01 12:59"))
    assert job_schedule.is_over(settings(**config), at("2026-01-01 13:00"))
