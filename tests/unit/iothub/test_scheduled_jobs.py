"""Scheduled jobs: what a request may contain, what is decided, and what clients see."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.errors import InvalidRequestError
from birthmark.iothub.http.scheduled_jobs import is_read_as_object
from birthmark.iothub.model import HubJob, HubJobDevice, HubJobDeviceStatus, HubJobStatus, HubJobType
from birthmark.iothub.rules import scheduled_jobs as rules
from birthmark.iothub.rules.tier_throttles_and_quotas import Edition, Tier
from birthmark.iothub.rules.twin_query_plans import DEVICES, MODULES, HubQueryInvalidError, read_query, values_of
from birthmark.iothub.wire.scheduled_jobs import (
    MAX_BODY_BYTES,
    HubJobInvalidError,
    JobOrder,
    check_job_id,
    job_device_json,
    job_json,
    parse_job_filter,
    parse_job_order,
    parse_start,
)
from support.fakes import NOON

UPDATE = {"etag": "*", "tags": {"a": 1}, "properties": {"desired": {"fan": 1}}}
TWIN = {"jobId": "j", "type": "scheduleUpdateTwin", "updateTwin": UPDATE, "queryCondition": "*"}
CALL = {"methodName": "look", "payload": {"a": 1}, "responseTimeoutInSeconds": "20", "connectTimeoutInSeconds": 5}
METHOD = {"jobId": "j", "type": "scheduleDeviceMethod", "cloudToDeviceMethod": CALL, "queryCondition": "*"}


def parsed(body: dict[str, Any]) -> JobOrder:
    return parse_job_order(json.dumps(body).encode(), "j")


def a_job(**changed: Any) -> HubJob:
    return rules.create_job("hub", "j", parsed(TWIN | changed), "service", NOON)


def test_a_twin_update_keeps_its_tags_and_desired_properties() -> None:
    order = parsed(TWIN | {"updateTwin": UPDATE | {"deviceId": "template", "version": None}})
    assert order.content == {"deviceId": "template", **UPDATE}
    assert (order.type, order.max_s, order.starts_at) == (HubJobType.TWIN, 3600, None)


def test_a_method_keeps_its_timeouts_also_where_they_are_quoted() -> None:
    assert parsed(METHOD).content == CALL | {"responseTimeoutInSeconds": 20}


@pytest.mark.parametrize(
    "body",
    [
        METHOD | {"updateTwin": UPDATE},
        TWIN | {"cloudToDeviceMethod": CALL},
        {name: value for name, value in TWIN.items() if name != "updateTwin"},
        {name: value for name, value in METHOD.items() if name != "cloudToDeviceMethod"},
        TWIN | {"updateTwin": UPDATE | {"etag": "AAA="}},
        TWIN | {"updateTwin": UPDATE | {"properties": {"reported": {"a": 1}}}},
        TWIN | {"updateTwin": UPDATE | {"properties": 1}},
        TWIN | {"queryCondition": " "},
        TWIN | {"jobId": "other"},
        TWIN | {"tags": {"a": 1}},
        TWIN | {"type": "export"},
    ],
)
def test_what_would_have_no_effect_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        parsed(body)


def test_a_body_has_a_bounded_size() -> None:
    with pytest.raises(HubJobInvalidError):
        parse_job_order(b" " * (MAX_BODY_BYTES + 1), "j")


@pytest.mark.parametrize("job_id", ["", "a/b", "a b", "ü", "x" * 129, "query"])
def test_an_id_is_printable_ascii(job_id: str) -> None:
    with pytest.raises(HubJobInvalidError):
        check_job_id(job_id)
    assert check_job_id("Job-1:.+%_#*?!(),=@;$'") == "Job-1:.+%_#*?!(),=@;$'"


def test_a_start_is_read_with_and_without_a_zone() -> None:
    assert parse_start("2026-01-31T08:00:00.1234567Z") == datetime(2026, 1, 31, 8, 0, 0, 123456, UTC)
    assert parse_start("2026-01-31T08:00:00+02:00") == datetime(2026, 1, 31, 6, tzinfo=UTC)
    assert parse_start("2026-01-31T08:00:00") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert parse_start(None) is None
    for text in ("0001-01-01T00:00:00+14:00", "2026-01-31T08:00:00Z" + " " * 40, "now"):
        with pytest.raises(HubJobInvalidError):
            parse_start(text)


def test_filters_are_known_types_and_statuses() -> None:
    assert parse_job_filter("ScheduleUpdateTwin", "Running") == ("scheduleUpdateTwin", "running")
    assert parse_job_filter("export", "enqueued") == ("export", "enqueued")
    assert parse_job_filter(None, "") == ("", "")
    for wrong in (("later", None), (None, "later")):
        with pytest.raises(HubJobInvalidError):
            parse_job_filter(*wrong)


@pytest.mark.parametrize(
    ("condition", "collection", "has_where"),
    [
        ("*", DEVICES, False),
        ("tags.a = 1", DEVICES, True),
        ("from devices where tags.a = 1", DEVICES, True),
        (" FROM devices.modules WHERE moduleId = 'm'", MODULES, True),
        ("from devices.modules", MODULES, False),
    ],
)
def test_a_condition_selects_devices_or_modules(condition: str, collection: str, *, has_where: bool) -> None:
    query = rules.selection(condition)
    assert (query.collection, query.where is not None) == (collection, has_where)


@pytest.mark.parametrize("condition", ["tags.a =", "from devices.jobs", "tags.a = 1 GROUP BY tags.a", "SELECT *"])
def test_another_condition_is_refused(condition: str) -> None:
    with pytest.raises(HubQueryInvalidError):
        rules.selection(condition)


@pytest.mark.parametrize(
    "changed",
    [
        {"startTime": (NOON + rules.MAX_AHEAD + timedelta(seconds=1)).isoformat()},
        {"maxExecutionTimeInSeconds": rules.MAX_TIME_S + 1},
        {"maxExecutionTimeInSeconds": -1},
        {"updateTwin": {"tags": {"a.b": 1}}},
        {"updateTwin": {"tags": {"a": "x" * 9000}}},
    ],
)
def test_what_no_device_could_take_is_refused_at_once(changed: dict[str, Any]) -> None:
    with pytest.raises(HubJobInvalidError):
        a_job(**changed)


def test_a_start_in_the_past_is_now() -> None:
    assert a_job(startTime="2020-01-01T00:00:00Z").starts_at == NOON


def test_a_scheduled_job_whose_time_has_come_is_shown_as_queued() -> None:
    job = a_job(startTime=(NOON + timedelta(hours=1)).isoformat())
    assert job_json(job, NOON)["status"] == "scheduled"
    assert job_json(job, NOON + timedelta(hours=1))["status"] == "queued"


def test_a_job_that_has_begun_stays_open_when_it_is_cancelled_and_one_that_has_not_ends() -> None:
    job = a_job()
    assert rules.cancel_job(job, NOON).is_open is False
    cancelled = rules.cancel_job(rules.start_job(job, NOON), NOON)
    assert (cancelled.is_open, cancelled.status, cancelled.ended_at) == (True, HubJobStatus.CANCELLED, NOON)
    closed = rules.close_job(cancelled, NOON + timedelta(seconds=9))
    assert (closed.is_open, closed.status, closed.ended_at) == (False, HubJobStatus.CANCELLED, NOON)
    with pytest.raises(rules.HubJobEndedError):
        rules.cancel_job(cancelled, NOON)


def test_tiers_bound_jobs_and_their_devices() -> None:
    assert [rules.most_running(Edition(tier)) for tier in Tier] == [1, 1, 5, 10]
    assert [rules.devices_per_s(Edition(tier)) for tier in Tier] == [10, 10, 10, 50]
    assert (rules.most_running(None), rules.devices_per_s(None)) == (rules.MAX_RUNNING, None)


def test_a_device_of_a_job_is_shown_with_its_outcome_or_error() -> None:
    one = HubJobDevice("hub", "j", "d/m", "d", HubJobType.METHOD, HubJobDeviceStatus.PENDING, NOON, NOON)
    shown = job_device_json(one)
    assert (shown["deviceId"], shown["moduleId"], shown["status"]) == ("d", "m", "pending")
    begun = rules.begin_device(one, "worker", NOON)
    done = rules.complete_device(begun, '{"status": 200, "payload": null}', NOON)
    assert job_device_json(done)["outcome"] == {"deviceMethodResponse": {"status": 200, "payload": None}}
    failed = rules.fail_device(begun, "404103", "DeviceNotOnline", NOON)
    assert job_device_json(failed)["error"] == {"code": "404103", "description": "DeviceNotOnline"}


def test_the_names_of_devices_in_jobs_may_have_the_collection_before_them() -> None:
    query = read_query("SELECT * FROM devices.jobs WHERE devices.jobs.JobId = 'j' AND status = 'failed'")
    assert values_of(query.where) == {"jobId": "j", "status": "failed"}
    assert values_of(read_query("SELECT * FROM devices.jobs WHERE jobId = 'j' OR jobId = 'k'").where) == {}
    with pytest.raises(HubQueryInvalidError):
        read_query("SELECT * FROM devices.jobs WHERE tags.a = 1")


def test_only_the_python_sdk_reads_a_list_of_jobs_as_an_object() -> None:
    assert is_read_as_object("python/3.11.2 msrest/0.7.1 iothubgatewayserviceapis/1.0.0")
    assert not is_read_as_object("azure-iothub/1.16.5 (node v18)")
    assert not is_read_as_object("iothubgatewayserviceapis/1.0 IoTPlatformCliExtension/0.25.0")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*TWIN, *METHOD, "startTime", "maxExecutionTimeInSeconds", "x"]), JSON))
def test_any_other_document_is_refused_with_a_specific_error(changed: dict[str, Any]) -> None:
    for base in (TWIN, METHOD):
        try:
            job = rules.create_job("hub", "j", parsed(base | changed), "service", NOON)
        except InvalidRequestError:
            continue
        assert json.loads(job.content)
