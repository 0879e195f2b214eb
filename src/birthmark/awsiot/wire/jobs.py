"""JSON of jobs: documents and settings from operators, requests from devices, and the responses to both.

Devices get times as whole seconds since 1970, over MQTT and HTTPS; operators get milliseconds. A job document is an
object over MQTT and text over HTTPS. Only operators get status details in `detailsMap`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec

from birthmark.awsiot.model import Account, ExecutionStatus, Job, JobExecution, JobTemplate
from birthmark.awsiot.wire import BodyInvalidError, seconds
from birthmark.errors import ConflictError, InvalidRequestError
from birthmark.unknown_field_detection import find_unread_member
from birthmark.untrusted_json_and_text import decode_json

MAX_DOCUMENT_BYTES = 32 * 1024
MAX_TOKEN_BYTES = 64
MAX_DETAILS = 10
MAX_STEP_MINUTES = 7 * 24 * 60
_PLACEHOLDER = re.compile(r"\$\{aws:iot:([a-z0-9-]{1,40})")
_DETAIL_KEY = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
MAX_DETAIL_CHARS = 1024
_MICROS = 1_000_000
_encode = msgspec.json.Encoder().encode


class JobRequestError(InvalidRequestError):
    """A job request is not valid; `detail` is the complete sentence."""

    code = "awsiot.job_request_invalid"
    message = "{detail}"
    cause = "A job request was rejected: {detail}."
    fix = (
        "From a device, set the status IN_PROGRESS, SUCCEEDED, FAILED or REJECTED. To list the jobs: `birthmark aws "
        "job ls`"
    )
    detail: str
    is_json: bool = True


class StatusNotForDevicesError(ConflictError):
    """A device cannot set this job execution status."""

    code = "awsiot.job_status_not_for_devices"
    message = "The status of job execution cannot be changed to be {status}"
    cause = (
        "A device requested the status {status}, but devices can set only IN_PROGRESS, SUCCEEDED, FAILED or REJECTED."
    )
    fix = (
        "Send a status that devices can set. For help on how an administrator cancels an execution: `aws iot "
        "cancel-job-execution help`"
    )
    status: str


PerMinute = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Minutes = Annotated[int, msgspec.Meta(ge=1, le=MAX_STEP_MINUTES)]


class RateIncreaseCriteria(msgspec.Struct, rename="camel", omit_defaults=True):
    number_of_notified_things: Positive | None = None
    number_of_succeeded_things: Positive | None = None


class ExponentialRate(msgspec.Struct, rename="camel", omit_defaults=True):
    base_rate_per_minute: PerMinute
    increment_factor: Annotated[float, msgspec.Meta(ge=1.1, le=5)]
    rate_increase_criteria: RateIncreaseCriteria


class RolloutConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    maximum_per_minute: PerMinute | None = None
    exponential_rate: ExponentialRate | None = None


class AbortCriteria(msgspec.Struct, rename="camel", omit_defaults=True):
    failure_type: Literal["FAILED", "REJECTED", "TIMED_OUT", "ALL"]
    action: Literal["CANCEL"]
    threshold_percentage: Annotated[float, msgspec.Meta(gt=0, le=100)]
    min_number_of_executed_things: Positive


class AbortConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    criteria_list: Annotated[list[AbortCriteria], msgspec.Meta(min_length=1, max_length=8)]


class TimeoutConfig(msgspec.Struct, rename={"minutes": "inProgressTimeoutInMinutes"}, omit_defaults=True):
    minutes: Minutes | None = None


class RetryCriteria(msgspec.Struct, rename="camel", omit_defaults=True):
    failure_type: Literal["FAILED", "TIMED_OUT", "ALL"]
    number_of_retries: Annotated[int, msgspec.Meta(ge=0, le=10)]


class RetryConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    criteria_list: Annotated[list[RetryCriteria], msgspec.Meta(min_length=1, max_length=2)]


class PresignedUrlConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    role_arn: Annotated[str, msgspec.Meta(min_length=20, max_length=2048)] | None = None
    expires_in_sec: Annotated[int, msgspec.Meta(ge=60, le=3600)] | None = None


class MaintenanceWindow(msgspec.Struct, rename="camel", omit_defaults=True):
    start_time: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    duration_in_minutes: Annotated[int, msgspec.Meta(ge=1, le=1430)]


class SchedulingConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    start_time: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    end_time: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    end_behavior: Literal["STOP_ROLLOUT", "CANCEL", "FORCE_CANCEL"] | None = None
    maintenance_windows: list[MaintenanceWindow] | None = None


class JobConfiguration(msgspec.Struct, rename="camel", omit_defaults=True):
    """Job settings: rollout, scheduling, abort, timeout and retry."""

    job_executions_rollout_config: RolloutConfig | None = None
    abort_config: AbortConfig | None = None
    timeout_config: TimeoutConfig | None = None
    job_executions_retry_config: RetryConfig | None = None
    presigned_url_config: PresignedUrlConfig | None = None
    scheduling_config: SchedulingConfig | None = None


SETTINGS: Mapping[str, Any] = {
    "jobExecutionsRolloutConfig": RolloutConfig,
    "abortConfig": AbortConfig,
    "timeoutConfig": TimeoutConfig,
    "jobExecutionsRetryConfig": RetryConfig,
    "presignedUrlConfig": PresignedUrlConfig,
}
"""Types of the job settings, by their names in a request."""


def parse_settings(values: Mapping[str, Any]) -> JobConfiguration:
    """Parse a job's settings from an operator; reject unknown members. Raise `BodyInvalidError`."""
    if (member := find_unread_member(dict(values), JobConfiguration)) is not None:
        raise BodyInvalidError(detail=f"{member} in the settings is not known"[:300])
    try:
        return msgspec.convert(dict(values), JobConfiguration)
    except msgspec.ValidationError as error:
        raise BodyInvalidError(detail=f"the settings: {error}"[:300]) from error


def settings_of(values: Mapping[str, Any]) -> JobConfiguration:
    """Return a job's settings from their stored form."""
    return msgspec.convert(dict(values), JobConfiguration)


def parse_document(text: str) -> str:
    """Validate a job document and return it unchanged. Raise `BodyInvalidError`."""
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise BodyInvalidError(detail=f"document has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = decode_json(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BodyInvalidError(detail=f"document is not JSON: {error}"[:300]) from error
    if not isinstance(document, dict):
        raise BodyInvalidError(detail="document is not a JSON object")
    return text


@lru_cache(maxsize=64)
def compact(document: str) -> str:
    """Return a job document as AWS delivers it to devices: without white space and null members."""

    def without_nulls(members: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in members.items() if value is not None}

    return json.dumps(json.loads(document, object_hook=without_nulls), separators=(",", ":"), ensure_ascii=False)


def find_unsupported_placeholder(document: str) -> str | None:
    """Return the first unsupported placeholder in a document, such as a code signature, or None."""
    for found in _PLACEHOLDER.finditer(document):
        if found[1] not in {"parameter", "s3-presigned-url", "s3-presigned-url-v2"}:
            return found[0] + "}"
    return None


def parse_details(values: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return status details. Raise `JobRequestError`."""
    for name, value in (values or {}).items():
        if _DETAIL_KEY.fullmatch(name) is None or not 1 <= len(value) <= MAX_DETAIL_CHARS or not value.isprintable():
            raise JobRequestError(detail=f"statusDetails {name[:60]!r} has an invalid name or value")
    if values is not None and len(values) > MAX_DETAILS:
        raise JobRequestError(detail=f"statusDetails has more than {MAX_DETAILS} entries")
    return values


class DeviceUpdate(msgspec.Struct, rename="camel", frozen=True):
    """A device's job request; members that do not apply to the operation are ignored. -1 stops a step timer."""

    status: str = ""
    status_details: dict[str, str] | None = None
    expected_version: int | None = None
    execution_number: int | None = None
    include_job_execution_state: bool = False
    include_job_document: bool | None = None
    step_timeout_in_minutes: int | None = None
    client_token: str | None = None


_BY_DEVICES = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED")
_BY_THE_SERVICE = frozenset({"QUEUED", "TIMED_OUT", "REMOVED", "CANCELED"})


def token_of(payload: bytes) -> str | None:
    """Return the client token of a request, even if the rest is invalid."""
    try:
        given = decode_json(payload or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    token = given.get("clientToken") if isinstance(given, dict) else None
    return token if isinstance(token, str) and len(token.encode()) <= MAX_TOKEN_BYTES else None


def parse_request(payload: bytes, *, is_update: bool = False) -> DeviceUpdate:
    """Parse a device's job request; an empty payload is `{}`, and numbers may be text.

    Raise `JobRequestError`.
    """
    try:
        given = decode_json(payload or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JobRequestError(detail="Invalid JSON", is_json=False) from error
    try:
        made = msgspec.convert(given, DeviceUpdate, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise JobRequestError(detail=str(error)[:200]) from error
    return checked(made, is_update=is_update)


def checked(update: DeviceUpdate, *, is_update: bool) -> DeviceUpdate:
    """Check a device's update, and return it. Raise `JobRequestError` or `StatusNotForDevicesError`."""
    if is_update and update.status in _BY_THE_SERVICE:
        raise StatusNotForDevicesError(status=update.status)
    if is_update and update.status not in _BY_DEVICES:
        raise JobRequestError(detail=f"status is not one of {', '.join(_BY_DEVICES)}")
    if update.client_token is not None and len(update.client_token.encode()) > MAX_TOKEN_BYTES:
        raise JobRequestError(detail=f"clientToken has more than {MAX_TOKEN_BYTES} bytes")
    step = update.step_timeout_in_minutes
    if step is not None and not (1 <= step <= MAX_STEP_MINUTES or (step == -1 and is_update)):
        raise JobRequestError(detail=f"stepTimeoutInMinutes is not within 1 and {MAX_STEP_MINUTES}")
    parse_details(update.status_details)
    return update


# ---- device messages


def epoch(moment: datetime) -> int:
    """Return a time in the format for devices: whole seconds since 1970."""
    return int(moment.timestamp())


def summary(execution: JobExecution) -> dict[str, Any]:
    """Return an entry of the pending executions lists."""
    told: dict[str, Any] = {
        "jobId": execution.job_id,
        "queuedAt": epoch(execution.queued_at),
        "lastUpdatedAt": epoch(execution.updated_at),
        "executionNumber": execution.number,
        "versionNumber": execution.version,
    }
    return told if execution.started_at is None else told | {"startedAt": epoch(execution.started_at)}


def execution(execution: JobExecution, document: str | None, now: datetime, *, is_text: bool = False) -> dict[str, Any]:
    """Return a complete execution; its document is an object unless `is_text`."""
    told = summary(execution) | {"thingName": execution.thing, "status": execution.status.value}
    if execution.details:
        told["statusDetails"] = dict(execution.details)
    if document is not None:
        told["jobDocument"] = document if is_text else raw(document)
    if (left := left_s(execution, now)) is not None:
        told["approximateSecondsBeforeTimedOut"] = left
    return told


def raw(document: str) -> msgspec.Raw:
    """Return a job document as the raw JSON object of an MQTT message."""
    return msgspec.Raw(document.encode())


def left_s(execution: JobExecution, now: datetime) -> int | None:
    """Return the seconds until the execution times out, or None without a timeout."""
    return None if execution.due_at is None else max(0, int((execution.due_at - now).total_seconds()))


def lists(pending: Sequence[JobExecution], names: tuple[str, str]) -> dict[str, Any]:
    """Return the executions in progress and queued, under these two names."""
    running = [summary(one) for one in pending if one.status is ExecutionStatus.IN_PROGRESS]
    return {names[0]: running, names[1]: [summary(one) for one in pending if one.status is ExecutionStatus.QUEUED]}


def state(execution: JobExecution) -> dict[str, Any]:
    """Return the state of an execution."""
    return {
        "status": execution.status.value,
        "statusDetails": dict(execution.details),
        "versionNumber": execution.version,
    }


def body(values: Mapping[str, Any], now: datetime, token: str | None = None) -> bytes:
    """Return a message body with its timestamp and the request's client token."""
    return _encode({**values, "timestamp": epoch(now), **({} if token is None else {"clientToken": token})})


def answer(values: Mapping[str, Any]) -> bytes:
    """Return an HTTPS response body."""
    return _encode(values)


# ---- operator messages


_ALWAYS_TOLD = ("timeoutConfig", "schedulingConfig", "presignedUrlConfig", "jobExecutionsRolloutConfig")
"""Members that DescribeJob returns even for a job without them (measured 2026-09)."""


def job_json(account: Account, job: Job, targets: Sequence[str], details: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job in the format of DescribeJob."""
    told = job_entry_json(account, job) | {
        "forceCanceled": job.force_canceled,
        "targets": [account.arn(*target.split("/", 1)) for target in targets],
        "jobProcessDetails": dict(details),
        **{name: {} for name in _ALWAYS_TOLD},
        **job.settings,
    }
    optional = {"reasonCode": job.reason_code, "comment": job.comment, "description": job.description}
    if job.template is not None:
        optional["jobTemplateArn"] = template_arn(account, job.template)
    if job.parameters:
        told["documentParameters"] = dict(job.parameters)
    return told | {name: value for name, value in optional.items() if value is not None}


def job_entry_json(account: Account, job: Job) -> dict[str, Any]:
    """Return an entry of ListJobs."""
    told = {
        "jobArn": account.arn("job", job.job_id),
        "jobId": job.job_id,
        "targetSelection": "CONTINUOUS" if job.is_continuous else "SNAPSHOT",
        "status": job.status.value,
        "createdAt": seconds(job.created_at),
        "lastUpdatedAt": seconds(job.updated_at),
        "isConcurrent": False,
    }
    return told if job.completed_at is None else told | {"completedAt": seconds(job.completed_at)}


def execution_json(account: Account, execution: JobExecution, now: datetime) -> dict[str, Any]:
    """Return an execution in the operator API format."""
    told: dict[str, Any] = {
        "jobId": execution.job_id,
        "thingArn": account.arn("thing", execution.thing),
        "status": execution.status.value,
        "forceCanceled": execution.force_canceled,
        "statusDetails": {"detailsMap": dict(execution.details)},
        "queuedAt": seconds(execution.queued_at),
        "lastUpdatedAt": seconds(execution.updated_at),
        "executionNumber": execution.number,
        "versionNumber": execution.version,
    }
    if execution.started_at is not None:
        told["startedAt"] = seconds(execution.started_at)
    if (left := left_s(execution, now)) is not None:
        told["approximateSecondsBeforeTimedOut"] = left
    return told


def execution_entry_json(execution: JobExecution) -> dict[str, Any]:
    """Return an execution's entry in a list."""
    told: dict[str, Any] = {
        "status": execution.status.value,
        "queuedAt": seconds(execution.queued_at),
        "lastUpdatedAt": seconds(execution.updated_at),
        "executionNumber": execution.number,
        "retryAttempt": execution.number - 1,
    }
    return told if execution.started_at is None else told | {"startedAt": seconds(execution.started_at)}


def template_json(account: Account, template: JobTemplate) -> dict[str, Any]:
    """Return the DescribeJobTemplate response."""
    told = template_entry_json(account, template) | {"document": template.document, **template.settings}
    return told if template.source is None else told | {"documentSource": template.source}


def template_entry_json(account: Account, template: JobTemplate) -> dict[str, Any]:
    """Return an entry of ListJobTemplates."""
    return {
        "jobTemplateArn": account.arn("jobtemplate", template.template_id),
        "jobTemplateId": template.template_id,
        "description": template.description,
        "createdAt": seconds(template.created_at),
    }


def template_arn(account: Account, template: str) -> str:
    """Return the ARN of a template.

    The ARN of an AWS managed template, whose ID has a version, has no account.
    """
    if ":" in template:
        return f"arn:aws:iot:{account.region}::jobtemplate/{template}"
    return account.arn("jobtemplate", template)
