"""Jobs: which moves a device and an operator may make, how fast a job goes out, when it stops, what is tried again."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.error_mapping import http_error, job_rejection
from birthmark.awsiot.model import PENDING, ExecutionStatus, Job, JobExecution, JobStatus
from birthmark.awsiot.rules import job_executions as rules
from birthmark.awsiot.rules.job_executions import due, rate_of
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire import jobs as wire
from birthmark.errors import ConflictError, UnavailableError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
S = ExecutionStatus
BY_DEVICES = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED")


def a_job(status: JobStatus = JobStatus.IN_PROGRESS, **settings: Any) -> Job:
    return Job(
        *("j", "{}", None, settings, False, None, status, False, None, None),
        *(NOON, NOON, None, 0, NOON, 1),
    )


def an_execution(status: ExecutionStatus = S.QUEUED, **changed: Any) -> JobExecution:
    return replace(rules.create_first_execution(a_job(), "t", NOON), status=status, **changed)


@pytest.mark.parametrize("status", BY_DEVICES)
@pytest.mark.parametrize("known", list(S))
def test_a_device_moves_what_is_pending_on_and_nothing_else(known: ExecutionStatus, status: str) -> None:
    update = wire.DeviceUpdate(status=status)
    if known in PENDING:
        made = rules.apply_device_update(an_execution(known), update, a_job(), NOON)
        assert (made.status.value, made.version) == (status, 2)
    else:
        with pytest.raises(rules.ExecutionStateError):
            rules.apply_device_update(an_execution(known), update, a_job(), NOON)


@pytest.mark.parametrize("status", [one for one in S if one.value not in BY_DEVICES])
def test_a_device_sets_no_status_that_is_the_service_s(status: ExecutionStatus) -> None:
    with pytest.raises(wire.StatusNotForDevicesError) as refusal:
        wire.parse_request(json.dumps({"status": status.value}).encode(), is_update=True)
    assert str(refusal.value) == f"The status of job execution cannot be changed to be {status.value}"
    assert http_error(refusal.value) == (409, "InvalidStateTransitionException")
    assert job_rejection(refusal.value)["code"] == "InvalidStateTransition"


def test_a_job_that_is_canceled_is_not_begun_and_what_was_begun_may_end() -> None:
    job, update = a_job(JobStatus.CANCELED), wire.DeviceUpdate(status="SUCCEEDED")
    with pytest.raises(rules.ExecutionStateError):
        rules.apply_device_update(an_execution(), update, job, NOON)
    assert rules.apply_device_update(an_execution(S.IN_PROGRESS), update, job, NOON).status is S.SUCCEEDED


def test_details_stay_unless_others_are_given() -> None:
    known = an_execution(S.IN_PROGRESS, details={"a": "1"})
    kept = rules.apply_device_update(known, wire.DeviceUpdate(status="IN_PROGRESS"), a_job(), NOON)
    given_ = rules.apply_device_update(
        known, wire.DeviceUpdate(status="FAILED", status_details={"b": "2"}), a_job(), NOON
    )
    assert (kept.details, given_.details) == ({"a": "1"}, {"b": "2"})


def test_what_begins_ends_at_the_earlier_of_its_two_timers() -> None:
    job = a_job(timeoutConfig={"inProgressTimeoutInMinutes": 10})
    begun = rules.apply_start_next(an_execution(), None, 5, job, NOON)
    assert (begun.due_at, begun.ends_at) == (NOON + 5 * MINUTE, NOON + 10 * MINUTE)
    later = rules.apply_device_update(
        begun, wire.DeviceUpdate(status="IN_PROGRESS", step_timeout_in_minutes=30), job, NOON + MINUTE
    )
    assert later.due_at == NOON + 10 * MINUTE  # the whole one is set once
    never = rules.apply_device_update(
        begun, wire.DeviceUpdate(status="IN_PROGRESS", step_timeout_in_minutes=-1), job, NOON
    )
    assert never.due_at == NOON + 10 * MINUTE
    assert rules.apply_device_update(begun, wire.DeviceUpdate(status="SUCCEEDED"), job, NOON).due_at is None


def test_what_a_thing_is_on_is_returned_as_it_is() -> None:
    known = an_execution(S.IN_PROGRESS, details={"a": "1"})
    assert rules.apply_start_next(known, {"b": "2"}, None, a_job(), NOON) == known
    assert rules.apply_start_next(known, {"b": "2"}, 5, a_job(), NOON).details == {"a": "1"}


@pytest.mark.parametrize(
    ("status", "failure_type", "number", "tries_again"),
    [
        (S.FAILED, "FAILED", 1, True),
        (S.FAILED, "ALL", 2, True),
        (S.FAILED, "ALL", 3, False),
        (S.FAILED, "TIMED_OUT", 1, False),
        (S.TIMED_OUT, "TIMED_OUT", 1, True),
        (S.REJECTED, "ALL", 1, False),
        (S.SUCCEEDED, "ALL", 1, False),
        (S.CANCELED, "ALL", 1, False),
    ],
)
def test_what_failed_is_tried_again_as_often_as_the_job_says(
    status: ExecutionStatus, failure_type: str, number: int, *, tries_again: bool
) -> None:
    criteria = {"failureType": failure_type, "numberOfRetries": 2}
    job = a_job(jobExecutionsRetryConfig={"criteriaList": [criteria]})
    made = rules.next_attempt(an_execution(status, number=number, version=4), job, NOON)
    assert (made.status, made.number) == ((S.QUEUED, number + 1) if tries_again else (status, number))
    assert rules.next_attempt(an_execution(status), replace(job, status=JobStatus.CANCELED), NOON).status is status


@pytest.mark.parametrize(
    ("counts", "stops"),
    [
        ({S.FAILED: 1, S.SUCCEEDED: 8}, False),  # 9 of at least 10
        ({S.FAILED: 1, S.SUCCEEDED: 9}, False),
        ({S.FAILED: 2, S.SUCCEEDED: 8}, True),
        ({S.FAILED: 1, S.REJECTED: 1, S.SUCCEEDED: 8}, False),
        ({S.FAILED: 2, S.SUCCEEDED: 7, S.QUEUED: 90}, False),
        ({S.FAILED: 2, S.SUCCEEDED: 9}, False),
    ],
)
def test_a_job_stops_where_enough_of_enough_failed(counts: dict[ExecutionStatus, int], *, stops: bool) -> None:
    one = {"action": "CANCEL", "thresholdPercentage": 20, "minNumberOfExecutedThings": 10, "failureType": "FAILED"}
    settings = wire.settings_of({"abortConfig": {"criteriaList": [one]}})
    assert rules.should_abort(settings, counts) is stops
    assert not rules.should_abort(wire.JobConfiguration(), counts)


def a_rollout(**given_: Any) -> wire.RolloutConfig:
    return msgspec.convert(given_, wire.RolloutConfig)


def test_a_rate_grows_with_how_many_were_reached() -> None:
    rate = {"baseRatePerMinute": 10, "incrementFactor": 2, "rateIncreaseCriteria": {"numberOfNotifiedThings": 100}}
    config = a_rollout(exponentialRate=rate, maximumPerMinute=75)
    assert [rate_of(config, rolled, 0) for rolled in (0, 99, 100, 250, 300, 10**9)] == [10, 10, 20, 40, 75, 75]
    by_success = {**rate, "rateIncreaseCriteria": {"numberOfSucceededThings": 5}}
    config = a_rollout(exponentialRate=by_success)
    assert [rate_of(config, 10**9, succeeded) for succeeded in (0, 5, 10**9)] == [10, 20, 1000]
    assert (rate_of(a_rollout(maximumPerMinute=7), 0, 0), rate_of(None, 0, 0)) == (7, None)


def test_what_is_due_counts_what_time_brought_and_forgets_none_of_it() -> None:
    assert due(60, NOON, NOON + timedelta(seconds=2.5), 100) == (2, NOON + timedelta(seconds=2))
    assert due(60, NOON, NOON + timedelta(seconds=0.5), 100) == (0, NOON)
    assert due(None, NOON, NOON, 100) == (100, NOON)


def test_a_pause_or_a_clock_that_jumps_lets_a_minute_s_worth_out_and_one_put_back_nothing() -> None:
    number, since = due(60, NOON, NOON + timedelta(days=99), 1000)
    assert (number, since) == (60, NOON + timedelta(days=99))
    assert due(60, NOON, NOON - timedelta(days=99), 1000) == (0, NOON - timedelta(days=99))


@given(st.integers(1, 1000), st.lists(st.floats(0, 30), min_size=1, max_size=20))
def test_no_minute_brings_more_than_its_rate(rate: int, steps: list[float]) -> None:
    now = since = NOON
    total = 0
    for step in steps:
        now += timedelta(seconds=step)
        number, since = due(rate, since, now, 250)
        total += number
    assert total <= (now - NOON) / MINUTE * rate + 1e-3


@pytest.mark.parametrize(
    ("payload", "is_update", "code"),
    [
        (b"{", False, "InvalidJson"),
        (b"\xff", False, "InvalidJson"),
        (b"[" * 5000, False, "InvalidJson"),
        (b"[]", False, "InvalidRequest"),
        (b'{"status": "DONE"}', True, "InvalidRequest"),
        (b'{"clientToken": 5}', False, "InvalidRequest"),
        (b'{"clientToken": "%s"}' % (b"x" * 65), False, "InvalidRequest"),
        (b'{"stepTimeoutInMinutes": 10081}', False, "InvalidRequest"),
        (b'{"stepTimeoutInMinutes": -1}', False, "InvalidRequest"),
        (b'{"statusDetails": {"a": 1}}', False, "InvalidRequest"),
        (b'{"statusDetails": {"": "x"}}', False, "InvalidRequest"),
        (b'{"statusDetails": {"a": ""}}', False, "InvalidRequest"),
        (json.dumps({"statusDetails": {f"k{n}": "v" for n in range(11)}}).encode(), False, "InvalidRequest"),
        (json.dumps({"statusDetails": {"a": "x" * 1025}}).encode(), False, "InvalidRequest"),
    ],
)
def test_a_request_out_of_bounds_is_refused_in_the_service_s_words(
    payload: bytes, code: str, *, is_update: bool
) -> None:
    with pytest.raises(wire.JobRequestError) as refused:
        wire.parse_request(payload, is_update=is_update)
    assert job_rejection(refused.value)["code"] == code


def test_numbers_of_a_request_may_be_texts() -> None:
    made = wire.parse_request(b'{"status": "FAILED", "expectedVersion": "2", "executionNumber": 1}', is_update=True)
    assert (made.expected_version, made.execution_number) == (2, 1)
    assert wire.parse_request(b"") == wire.DeviceUpdate()


def test_a_token_is_found_whatever_else_is_wrong() -> None:
    assert wire.token_of(b'{"clientToken": "t", "status": 5}') == "t"
    assert wire.token_of(b'{"clientToken": 5}') is wire.token_of(b"{") is wire.token_of(b"[]") is None


def test_what_passes_by_itself_is_told_as_such() -> None:
    assert job_rejection(UnavailableError())["code"] == "InternalError"
    assert job_rejection(ConflictError())["code"] == "RequestThrottled"


def test_a_document_is_an_object_of_32_kib_at_most() -> None:
    fits = json.dumps({"a": "x" * (wire.MAX_DOCUMENT_BYTES - 9)})
    assert wire.parse_document(fits) == fits
    for text in (fits.replace("x", "xx", 1), "[]", "{", "[" * 9000):
        with pytest.raises(BodyInvalidError):
            wire.parse_document(text)


def test_devices_are_told_whole_seconds_and_the_document_as_they_read_it() -> None:
    known = an_execution(queued_at=NOON + timedelta(milliseconds=700))
    by_mqtt = json.loads(wire.body({"execution": wire.execution(known, '{"a": 1}', NOON)}, NOON, "t"))
    assert by_mqtt["execution"]["jobDocument"] == {"a": 1}
    assert by_mqtt["execution"]["queuedAt"] == by_mqtt["timestamp"] == int(NOON.timestamp())
    over_https = json.loads(wire.answer({"execution": wire.execution(known, '{"a": 1}', NOON, is_text=True)}))
    assert over_https["execution"]["jobDocument"] == '{"a": 1}'
