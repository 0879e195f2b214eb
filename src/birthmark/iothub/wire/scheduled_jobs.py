"""JSON of scheduled jobs and of their devices (IoT Hub REST reference, "Jobs")."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import (
    QUEUED,
    HubJob,
    HubJobDevice,
    HubJobDeviceStatus,
    HubJobStatus,
    HubJobType,
    parse_name,
)
from birthmark.iothub.wire.methods_and_configurations import MethodCall, SentMethodCall, method_call_of
from birthmark.iothub.wire.times_and_body_validation import BodyInvalidError, registry_time
from birthmark.unknown_field_detection import find_unread_member, says_something
from birthmark.untrusted_json_and_text import read_json

MAX_BODY_BYTES = 256 * 1024
MAX_ID_CHARS, MAX_CONDITION_CHARS = 128, 8192
DEFAULT_S = 3600
_MAX_TIME_CHARS = 40
_ID = re.compile(r"[!-.0-~]+")  # printable ASCII without the slash
_RESERVED = "query"
_TYPES = frozenset(
    {
        *("unknown", "export", "import", "backup", "readDeviceProperties", "writeDeviceProperties"),
        *("updateDeviceConfiguration", "rebootDevice", "factoryResetDevice", "firmwareUpdate"),
        *("scheduleDeviceMethod", "scheduleUpdateTwin", "restoreFromBackup", "failoverDataCopy"),
    }
)
_STATUSES = frozenset({"unknown", "enqueued", QUEUED, *HubJobStatus})
_TYPE_NAMES = {name.lower(): name for name in _TYPES}


class HubJobInvalidError(InvalidRequestError):
    """The scheduled job is not valid."""

    code = "iothub.job_invalid"
    message = "The job is not valid: {detail}"
    cause = "The scheduled job is not valid: {detail}."
    fix = (
        "Use an ID of up to 128 printable ASCII characters without spaces and slashes, a query condition, and one "
        "method call or twin update. "
        "The start is within 20 days. To show the options: `birthmark hub job create --help`"
    )
    detail: str


class JobOrder(msgspec.Struct, frozen=True):
    """A requested job: its start is None for now; `content` is its method call or twin update."""

    type: HubJobType
    condition: str
    content: dict[str, Any]
    starts_at: datetime | None
    max_s: int


class _JobBody(msgspec.Struct, rename="camel"):
    """A job in a service request."""

    job_id: str | None = None
    type: str | None = None
    cloud_to_device_method: SentMethodCall | None = None
    update_twin: dict[str, Any] | None = None
    query_condition: str | None = None
    start_time: str | None = None
    max_execution_time_in_seconds: int | None = None


class _UpdateBody(msgspec.Struct, rename="camel"):
    """A twin update in a job; the device ID that some SDKs send has no effect, as the condition selects devices."""

    device_id: Any = None
    tags: Any = None
    properties: Any = None
    etag: Any = None


class _DesiredBody(msgspec.Struct):
    """Properties in a twin update of a job."""

    desired: Any = None


def check_job_id(job_id: str) -> str:
    """Return the ID of a job. Raise `HubJobInvalidError`."""
    if len(job_id) > MAX_ID_CHARS or _ID.fullmatch(job_id) is None:
        raise HubJobInvalidError(
            detail=f"an ID has 1 to {MAX_ID_CHARS} printable ASCII characters without spaces and slashes"
        )
    if job_id == _RESERVED:
        raise HubJobInvalidError(detail=f"{_RESERVED} is the path of the list of jobs")
    return job_id


def parse_job_order(body: bytes, job_id: str) -> JobOrder:
    """Return the job of a request. Raise `BodyInvalidError` or `HubJobInvalidError`."""
    if len(body) > MAX_BODY_BYTES:
        raise HubJobInvalidError(detail=f"it is larger than {MAX_BODY_BYTES} bytes")
    said = read_json(body, _JobBody, BodyInvalidError)
    if (member := find_unread_member(read_json(body, dict[str, Any], BodyInvalidError), _JobBody)) is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")
    if said.job_id not in {None, job_id}:
        raise HubJobInvalidError(detail="jobId differs from the one in the path")
    kind = _type_of(said)
    condition = said.query_condition or ""
    if not condition.strip():
        raise HubJobInvalidError(detail="queryCondition is missing; * selects all devices")
    if len(condition) > MAX_CONDITION_CHARS:
        raise HubJobInvalidError(detail=f"queryCondition is longer than {MAX_CONDITION_CHARS} characters")
    content = _method_of(said) if kind is HubJobType.METHOD else _update_of(said)
    seconds = said.max_execution_time_in_seconds or DEFAULT_S
    return JobOrder(kind, condition, content, parse_start(said.start_time), seconds)


def _type_of(said: _JobBody) -> HubJobType:
    try:
        return HubJobType(said.type or "")
    except ValueError as error:
        detail = f"type is not {HubJobType.METHOD.value} or {HubJobType.TWIN.value}"
        raise HubJobInvalidError(detail=detail) from error


def _method_of(said: _JobBody) -> dict[str, Any]:
    if said.cloud_to_device_method is None:
        raise HubJobInvalidError(detail="cloudToDeviceMethod is missing")
    if says_something(said.update_twin):
        raise HubJobInvalidError(detail="it has both a method and updateTwin")
    call: dict[str, Any] = msgspec.to_builtins(method_call_of(said.cloud_to_device_method))
    return call


def _update_of(said: _JobBody) -> dict[str, Any]:
    update = said.update_twin
    if update is None:
        raise HubJobInvalidError(detail="updateTwin is missing")
    if said.cloud_to_device_method is not None:
        raise HubJobInvalidError(detail="it has both updateTwin and a method")
    member = find_unread_member(update, _UpdateBody)
    properties = update.get("properties")
    if isinstance(properties, dict):
        member = member or find_unread_member(properties, _DesiredBody)
    elif properties is not None:
        raise HubJobInvalidError(detail="updateTwin.properties is not a JSON object")
    if member is not None:
        raise HubJobInvalidError(detail=f"a job cannot set {member}")
    if update.get("etag") not in (None, "", "*"):  # not a set: it may be a list
        raise HubJobInvalidError(detail='the etag of updateTwin is not "*": a job updates twins of any version')
    made = {name: update[name] for name in ("deviceId", "tags") if says_something(update.get(name))}
    desired = (properties or {}).get("desired")
    return {**made, **({} if desired is None else {"properties": {"desired": desired}}), "etag": "*"}


def parse_start(text: str | None) -> datetime | None:
    """Return the start of a job in UTC, None for now. Raise `HubJobInvalidError`."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text[: _MAX_TIME_CHARS + 1])  # no time is that long
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise HubJobInvalidError(detail="startTime is not a time such as 2026-01-31T08:00:00Z") from error


def parse_job_filter(job_type: str | None, job_status: str | None) -> tuple[str, str]:
    """Return the type and status that listed jobs have; empty for any. Raise `HubJobInvalidError`."""
    kind = _TYPE_NAMES.get((job_type or "").lower(), "")
    status = (job_status or "").lower()
    if job_type and not kind:
        raise HubJobInvalidError(detail="jobType is not the type of a job")
    if status and status not in _STATUSES:
        raise HubJobInvalidError(detail=f"jobStatus is not one of {', '.join(sorted(_STATUSES))}")
    return kind, status


def method_of(content: Mapping[str, Any]) -> MethodCall:
    """Return the method call of a stored job."""
    return msgspec.convert(content, MethodCall)


def shown_status(job: HubJob, now: datetime) -> str:
    """Return the status of a job as clients see it: one that waits for a place is queued."""
    is_queued = job.status is HubJobStatus.SCHEDULED and job.starts_at <= now
    return QUEUED if is_queued else job.status.value


def job_json(job: HubJob, now: datetime) -> dict[str, Any]:
    """Return a job as clients see it."""
    content = "cloudToDeviceMethod" if job.type is HubJobType.METHOD else "updateTwin"
    return {
        "jobId": job.job_id,
        "queryCondition": job.condition,
        "createdTime": registry_time(job.created_at),
        "startTime": registry_time(job.started_at or job.starts_at),
        "endTime": None if job.ended_at is None else registry_time(job.ended_at),
        "maxExecutionTimeInSeconds": job.max_s,
        "type": job.type.value,
        content: json.loads(job.content),
        "status": shown_status(job, now),
        "failureReason": job.reason,
        "statusMessage": None,
        "deviceJobStatistics": {
            "deviceCount": job.total,
            "failedCount": job.failed,
            "succeededCount": job.succeeded,
            "runningCount": job.running,
            "pendingCount": job.pending,
        },
    }


def job_device_json(one: HubJobDevice) -> dict[str, Any]:
    """Return a device's row of `devices.jobs`."""
    device_id, module_id = parse_name(one.name)
    shown: dict[str, Any] = {"deviceId": device_id}
    if module_id is not None:
        shown["moduleId"] = module_id
    shown |= {"jobId": one.job_id, "jobType": one.type.value, "status": one.status.value}
    for name, moment in (
        ("startTimeUtc", one.started_at),
        ("endTimeUtc", one.ended_at),
        ("createdDateTimeUtc", one.created_at),
        ("lastUpdatedDateTimeUtc", one.updated_at),
    ):
        if moment is not None:
            shown[name] = registry_time(moment)
    if one.outcome is not None:
        shown["outcome"] = {"deviceMethodResponse": json.loads(one.outcome)}
    if one.status is HubJobDeviceStatus.FAILED:
        shown["error"] = {"code": one.error_code, "description": one.error}
    return shown
