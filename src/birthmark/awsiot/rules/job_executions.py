"""Job executions: transitions by devices, operators, and time (developer guide, "Jobs", "Job execution states").

A device updates an execution that is QUEUED or IN_PROGRESS; all other states are final. A failed or timed-out attempt
may be followed by another, as configured by the job's retries. It has the next number, and its versions restart at 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from birthmark.awsiot.model import FAILS, PENDING, ExecutionStatus, Job, JobExecution, JobStatus
from birthmark.awsiot.rules import job_schedule
from birthmark.awsiot.wire.jobs import (
    DeviceUpdate,
    ExponentialRate,
    JobConfiguration,
    RetryConfig,
    RolloutConfig,
    settings_of,
)
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError

MINUTE = timedelta(minutes=1)
MAX_PER_MINUTE = 1000


def rate_of(config: RolloutConfig | None, rolled: int, succeeded: int) -> int | None:
    """Return the current rollout rate per minute; None without a limit."""
    if config is None:
        return None
    most = config.maximum_per_minute
    if (exponential := config.exponential_rate) is None:
        return most
    return min(_grown(exponential, rolled, succeeded), most or MAX_PER_MINUTE)


def _grown(rate: ExponentialRate, rolled: int, succeeded: int) -> int:
    by = rate.rate_increase_criteria
    steps = rolled // by.number_of_notified_things if by.number_of_notified_things else 0
    if by.number_of_succeeded_things:
        steps = succeeded // by.number_of_succeeded_things
    grown = float(rate.base_rate_per_minute)
    for _ in range(min(steps, 100)):  # by then the smallest factor far exceeds any allowed number
        grown = min(grown * rate.increment_factor, float(MAX_PER_MINUTE))
    return int(grown)


def due(rate: int | None, since: datetime, now: datetime, limit: int) -> tuple[int, datetime]:
    """Return the number of due executions, at most `most`, and the start of the next interval."""
    if rate is None:
        return limit, now
    if since > now:
        return 0, now
    since = max(since, now - MINUTE)
    number = min(int((now - since) * rate / MINUTE), limit)
    return number, since + MINUTE * number / rate


MAX_TARGETS = 100
MAX_ACTIVE = 200
"""Maximum number of active jobs; concurrent creations may slightly exceed it."""
_EXECUTED = FAILS | {ExecutionStatus.SUCCEEDED}


class UnknownJobError(NotFoundError):
    """The job does not exist."""

    code = "awsiot.unknown_job"
    message = "Job {job} cannot be found"
    fix = "List jobs: `birthmark aws job ls`"
    job: str


class UnknownJobTemplateError(NotFoundError):
    """The job template does not exist."""

    code = "awsiot.unknown_job_template"
    message = "Job template {template} cannot be found"
    fix = "List job templates: `{command}`"
    command: str = "aws iot list-job-templates"
    template: str


class JobExistsError(ConflictError):
    """A job or job template with this ID exists already."""

    code = "awsiot.job_exists"
    message = "{kind} {job} already exists"
    fix = "Choose another ID. List the IDs in use: `{command}`"
    command: str = "birthmark aws job ls"
    job: str
    kind: str = "Job"


class TooManyJobsError(PolicyError):
    """The account has the maximum number of jobs in progress."""

    code = "awsiot.job_limit"
    message = "The account has 200 jobs in progress, the maximum"
    fix = (
        "Cancel or delete jobs that you no longer need. List the jobs in progress: `birthmark aws job ls --status "
        "IN_PROGRESS`"
    )


class JobStateError(ConflictError):
    """The job's status does not permit this operation."""

    code = "awsiot.job_state"
    message = "Job {job} is {status}: {detail}"
    fix = "Show the job's status: `birthmark aws job show {job}`"
    detail: str
    job: str
    status: str


class UnknownExecutionError(NotFoundError):
    """The thing has no such job execution."""

    code = "awsiot.unknown_job_execution"
    message = "The execution of job {job} on {thing} cannot be found"
    fix = "List the job's executions: `birthmark aws job executions {job}`"
    job: str
    thing: str


class ExecutionStateError(ConflictError):
    """The job execution's status does not permit this change."""

    code = "awsiot.job_execution_state"
    message = "The execution of job {job} on {thing} cannot change from {status} to {wanted}"
    fix = "Show the status of each execution: `birthmark aws job executions {job}`"
    job: str
    status: str
    thing: str
    wanted: str


class ExecutionVersionError(ConflictError):
    """The job execution does not have the expected version."""

    code = "awsiot.job_execution_version"
    message = "Expected version {expected} does not match version {version} of job {job} on {thing}"
    cause = "Job {job} on {thing} is at version {version}; the request expected {expected}."
    fix = (
        "Repeat the request with the current version or without a version. List the job's executions: `birthmark aws "
        "job executions {job}`"
    )
    expected: int
    job: str
    thing: str
    version: int


class CancelVersionError(ConflictError):
    """CancelJobExecution expected another version of the job execution."""

    code = "awsiot.job_cancel_version"
    message = "Expected version {expected} does not match version {version} of job {job} on {thing}"
    cause = "Job {job} on {thing} is at version {version}; the request expected {expected}."
    fix = (
        "Repeat the request with the current version or without a version. List the job's executions: `birthmark aws "
        "job executions {job}`"
    )
    expected: int
    job: str
    thing: str
    version: int


class ExecutionOverError(InvalidRequestError):
    """The job execution has ended."""

    code = "awsiot.job_execution_over"
    message = "The execution of job {job} on {thing} has ended: {status}"
    fix = "Show the result: `birthmark aws job executions {job}`"
    job: str
    status: str
    thing: str


def create_first_execution(job: Job, thing: str, now: datetime) -> JobExecution:
    """Return the first attempt of a job on a thing."""
    return JobExecution(
        *(job.job_id, thing, 1, ExecutionStatus.QUEUED, 1, {}),
        force_canceled=False,
        queued_at=now,
        started_at=None,
        updated_at=now,
        ends_at=None,
        step_ends_at=None,
        due_at=None,
    )


def check_number(execution: JobExecution, number: int | None) -> None:
    """Raise `UnknownExecutionError` unless this is the requested attempt."""
    if number is not None and number != execution.number:
        raise UnknownExecutionError(job=execution.job_id, thing=execution.thing)


def apply_device_update(execution: JobExecution, update: DeviceUpdate, job: Job, now: datetime) -> JobExecution:
    """Apply a device's update to an execution, and return the result. Raise an error if it is not permitted.

    Raise `UnknownExecutionError`, `ExecutionVersionError`, `ExecutionStateError`.
    """
    check_number(execution, update.execution_number)
    if (expected := update.expected_version) is not None and expected != execution.version:
        raise ExecutionVersionError(
            job=execution.job_id, thing=execution.thing, version=execution.version, expected=expected
        )
    if execution.status not in PENDING or (
        execution.status is ExecutionStatus.QUEUED and job.status is not JobStatus.IN_PROGRESS
    ):
        raise _wrong(execution, update.status)
    details = execution.details if update.status_details is None else update.status_details
    if update.status != ExecutionStatus.IN_PROGRESS:
        return ended(execution, ExecutionStatus(update.status), now, details=details)
    started = start_execution(execution, job, now)
    return _due(replace(started, details=details, step_ends_at=_step(started, update.step_timeout_in_minutes, now)))


def start_execution(execution: JobExecution, job: Job, now: datetime) -> JobExecution:
    """Return an execution in progress; one that already is gets its next version."""
    if execution.status is ExecutionStatus.IN_PROGRESS:
        return replace(execution, version=execution.version + 1, updated_at=now)
    minutes = None if (timeout := settings_of(job.settings).timeout_config) is None else timeout.minutes
    return _due(
        replace(
            execution,
            status=ExecutionStatus.IN_PROGRESS,
            version=execution.version + 1,
            started_at=now,
            updated_at=now,
            ends_at=None if minutes is None else now + timedelta(minutes=minutes),
        )
    )


def apply_start_next(
    execution: JobExecution, details: Mapping[str, str] | None, step: int | None, job: Job, now: datetime
) -> JobExecution:
    """Return the next execution after start-next; one in progress keeps its details, and its timer is set."""
    if execution.status is ExecutionStatus.IN_PROGRESS:
        if step is None:
            return execution
        return _due(replace(start_execution(execution, job, now), step_ends_at=_step(execution, step, now)))
    made = start_execution(execution, job, now)
    return _due(replace(made, details=details or {}, step_ends_at=_step(made, step, now)))


def _step(execution: JobExecution, minutes: int | None, now: datetime) -> datetime | None:
    """Return the end of a step: unchanged, never (-1), or from now on."""
    if minutes is None:
        return execution.step_ends_at
    return None if minutes < 0 else now + timedelta(minutes=minutes)


def _due(execution: JobExecution) -> JobExecution:
    ends = [moment for moment in (execution.ends_at, execution.step_ends_at) if moment is not None]
    return replace(execution, due_at=min(ends, default=None))


def ended(
    execution: JobExecution, status: ExecutionStatus, now: datetime, *, details: Mapping[str, str], force: bool = False
) -> JobExecution:
    """Return the execution with a terminal status."""
    return replace(
        execution,
        status=status,
        version=execution.version + 1,
        details=details,
        force_canceled=force,
        updated_at=now,
        ends_at=None,
        step_ends_at=None,
        due_at=None,
    )


def cancel_execution(
    execution: JobExecution, expected: int | None, details: Mapping[str, str] | None, now: datetime, *, force: bool
) -> JobExecution:
    """Return a canceled execution; one in progress only with force. Raise an error if it is not permitted."""
    if expected is not None and expected != execution.version:
        raise CancelVersionError(
            job=execution.job_id, thing=execution.thing, version=execution.version, expected=expected
        )
    is_running = execution.status is ExecutionStatus.IN_PROGRESS
    if execution.status not in PENDING or (is_running and not force):
        raise _wrong(execution, ExecutionStatus.CANCELED)
    told = execution.details if details is None else details
    return ended(execution, ExecutionStatus.CANCELED, now, details=told, force=is_running)


def next_attempt(execution: JobExecution, job: Job, now: datetime) -> JobExecution:
    """Return the successor of a final state: the next attempt if retries remain, otherwise the final state itself."""
    settings = settings_of(job.settings)
    goes_on = job.status is JobStatus.IN_PROGRESS and not job_schedule.is_over(settings, now)
    if not goes_on or execution.number > retries(settings, execution.status):
        return execution
    return replace(
        execution,
        number=execution.number + 1,
        status=ExecutionStatus.QUEUED,
        version=1,
        details={},
        queued_at=now,
        started_at=None,
        updated_at=now,
    )


def create_rejoined_execution(execution: JobExecution, now: datetime) -> JobExecution:
    """Return a new execution for a thing that rejoined a continuous job's target group."""
    return replace(
        execution,
        number=execution.number + 1,
        status=ExecutionStatus.QUEUED,
        version=1,
        details={},
        force_canceled=False,
        queued_at=now,
        started_at=None,
        updated_at=now,
    )


def remove_queued_execution(execution: JobExecution, now: datetime) -> JobExecution:
    """Return the removed queued execution of a thing that left the target groups.

    It keeps its version (AWS, measured 2026-10).
    """
    return replace(
        execution, status=ExecutionStatus.REMOVED, updated_at=now, ends_at=None, step_ends_at=None, due_at=None
    )


def retries(settings: JobConfiguration, status: ExecutionStatus) -> int:
    """Return the number of retries after a final status."""
    config = settings.job_executions_retry_config or RetryConfig([])
    fitting = (one for one in config.criteria_list if one.failure_type in {status.value, "ALL"})
    may = status in {ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT}
    return max((one.number_of_retries for one in fitting), default=0) if may else 0


def should_abort(settings: JobConfiguration, counts: Mapping[ExecutionStatus, int]) -> bool:
    """Return whether the failed executions exceed the job's abort threshold."""
    executed = sum(counts.get(status, 0) for status in _EXECUTED)
    for one in settings.abort_config.criteria_list if settings.abort_config is not None else ():
        kinds: Sequence[Any] = [*FAILS] if one.failure_type == "ALL" else [ExecutionStatus(one.failure_type)]
        failed = sum(counts.get(kind, 0) for kind in kinds)
        if executed >= one.min_number_of_executed_things and failed * 100 >= one.threshold_percentage * executed:
            return True
    return False


def _wrong(execution: JobExecution, expected: str) -> ExecutionStateError:
    return ExecutionStateError(
        job=execution.job_id, thing=execution.thing, status=execution.status.value, wanted=str(expected)
    )
