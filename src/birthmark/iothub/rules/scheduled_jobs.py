"""Scheduled jobs: validation, limits and decisions ("Schedule jobs on multiple devices").

A job has a method call or a twin update, a condition that selects its devices when it starts, and a time window.
"""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta

from birthmark.documents.queries import DocumentQuery
from birthmark.errors import ConflictError, ForbiddenError, NotFoundError
from birthmark.iothub.model import HubJob, HubJobDevice, HubJobDeviceStatus, HubJobStatus, HubJobType, Twin
from birthmark.iothub.rules.direct_methods import MethodInvalidError, check_call
from birthmark.iothub.rules.tier_throttles_and_quotas import Edition, ThrottleClass
from birthmark.iothub.rules.twin_query_plans import DEVICES, JOBS, HubQueryInvalidError, read_query
from birthmark.iothub.rules.twins import TwinInvalidError, desire
from birthmark.iothub.wire.scheduled_jobs import HubJobInvalidError, JobOrder, method_of

MAX_AHEAD = timedelta(days=20)
MAX_TIME_S = 30 * 86_400
HISTORY = timedelta(days=30)
MAX_OPEN = 500
"""Maximum number of jobs per hub that have not ended."""
MAX_RUNNING = 10
"""Number of jobs that run at a time at a hub without a tier."""
_COLLECTION = re.compile(r"\s*from\s", re.IGNORECASE)


class HubJobExistsError(ConflictError):
    """The ID of the scheduled job is taken."""

    code = "iothub.job_exists"
    message = "Job {job_id} already exists"
    cause = "The hub {hub} has had a scheduled job {job_id} within 30 days."
    fix = "Choose another job ID. List the jobs: `birthmark hub job ls --hub {hub}`"
    hub: str
    job_id: str


class UnknownHubJobError(NotFoundError):
    """The hub has no such scheduled job."""

    code = "iothub.unknown_job"
    message = "Job {job_id} does not exist"
    cause = "The hub {hub} has no scheduled job {job_id}. Jobs are deleted 30 days after their end."
    fix = "List the jobs: `birthmark hub job ls --hub {hub}`"
    hub: str
    job_id: str


class TooManyHubJobsError(ForbiddenError):
    """The hub has too many scheduled jobs that have not ended."""

    code = "iothub.job_quota"
    message = "Hub {hub} has {most} jobs that have not ended, the maximum"
    cause = "Hub {hub} has {most} scheduled jobs that have not ended, which is the maximum."
    fix = (
        "Cancel a job that has not ended, or wait until one has ended. List those that wait: `birthmark hub job ls "
        "--hub {hub} --status scheduled`"
    )
    hub: str
    most: int = MAX_OPEN


class HubJobEndedError(ConflictError):
    """The scheduled job has ended."""

    code = "iothub.job_ended"
    message = "Job {job_id} has ended: {status}"
    cause = "The scheduled job {job_id} of hub {hub} has ended with the status {status}."
    fix = "Show the job and its devices: `birthmark hub job show --hub {hub} {job_id}`"
    hub: str
    job_id: str
    status: str


def selection(condition: str) -> DocumentQuery:
    """Return the query that selects the devices of a job. Raise `HubQueryInvalidError`."""
    before, rest = "SELECT * ", condition.strip()
    if rest == "*":
        rest = f"FROM {DEVICES}"
    elif _COLLECTION.match(condition) is None:
        before += f"FROM {DEVICES} WHERE "
    query = read_query(f"{before}{rest}", len(before))
    if query.collection == JOBS or query.group_by:
        raise HubQueryInvalidError(detail="a job selects from devices or devices.modules, without GROUP BY")
    return query


def create_job(hub: str, job_id: str, order: JobOrder, actor: str, now: datetime) -> HubJob:
    """Return a new job. Raise `HubJobInvalidError` or `HubQueryInvalidError`."""
    selection(order.condition)
    starts_at = now if order.starts_at is None else order.starts_at
    if starts_at > now + MAX_AHEAD:
        raise HubJobInvalidError(detail=f"startTime is more than {MAX_AHEAD.days} days ahead")
    if not 0 < order.max_s <= MAX_TIME_S:
        raise HubJobInvalidError(detail=f"maxExecutionTimeInSeconds is not 1 to {MAX_TIME_S}")
    try:
        if order.type is HubJobType.METHOD:
            check_call(method_of(order.content), job_id)
        else:
            desire(Twin(hub, job_id), order.content, 0)
    except (MethodInvalidError, TwinInvalidError) as error:
        raise HubJobInvalidError(detail=str(error.facts["detail"])) from error
    content = json.dumps(order.content)
    return HubJob(
        hub,
        job_id,
        order.type,
        order.condition,
        content,
        actor,
        HubJobStatus.SCHEDULED,
        created_at=now,
        starts_at=max(starts_at, now),
        max_s=order.max_s,
    )


def start_job(job: HubJob, now: datetime) -> HubJob:
    """Return a job that starts."""
    return replace(job, status=HubJobStatus.RUNNING, started_at=now, revision=job.revision + 1)


def cancel_job(job: HubJob, now: datetime) -> HubJob:
    """Return a cancelled job; devices that have not begun follow. Raise `HubJobEndedError`."""
    if job.status not in {HubJobStatus.SCHEDULED, HubJobStatus.RUNNING}:
        raise HubJobEndedError(hub=job.hub, job_id=job.job_id, status=job.status.value)
    is_open = job.status is HubJobStatus.RUNNING
    return replace(job, status=HubJobStatus.CANCELLED, ended_at=now, is_open=is_open, revision=job.revision + 1)


def close_job(job: HubJob, now: datetime) -> HubJob:
    """Return a job whose devices are all done: one that was not cancelled and did not fail is completed."""
    is_whole = job.status is HubJobStatus.RUNNING
    status = HubJobStatus.COMPLETED if is_whole else job.status
    return replace(job, status=status, ended_at=job.ended_at or now, is_open=False, revision=job.revision + 1)


def fail_job(job: HubJob, reason: str, now: datetime) -> HubJob:
    """Return a job whose devices could not be selected; devices that have not begun follow."""
    return replace(job, status=HubJobStatus.FAILED, reason=reason, ended_at=now, revision=job.revision + 1)


def ends_at(job: HubJob) -> datetime:
    """Return the end of a started job's time window."""
    return (job.started_at or job.starts_at) + timedelta(seconds=job.max_s)


def begin_device(one: HubJobDevice, holder: str, now: datetime) -> HubJobDevice:
    """Return a device whose method is about to be called by a worker."""
    return replace(one, status=HubJobDeviceStatus.RUNNING, holder=holder, started_at=now, updated_at=now)


def complete_device(one: HubJobDevice, outcome: str | None, now: datetime) -> HubJobDevice:
    """Return a device that is done."""
    status = HubJobDeviceStatus.COMPLETED
    began = one.started_at or now
    return replace(one, status=status, holder=None, outcome=outcome, started_at=began, ended_at=now, updated_at=now)


def fail_device(one: HubJobDevice, code: str, reason: str, now: datetime) -> HubJobDevice:
    """Return a device that failed."""
    status = HubJobDeviceStatus.FAILED
    return replace(one, status=status, holder=None, error_code=code, error=reason, ended_at=now, updated_at=now)


def most_running(edition: Edition | None) -> int:
    """Return how many jobs of a hub run at a time."""
    return MAX_RUNNING if edition is None else edition.most_jobs


def devices_per_s(edition: Edition | None) -> float | None:
    """Return how many devices per second the jobs of a hub may begin; None: no limit."""
    return None if edition is None else edition.pace(ThrottleClass.JOB_DEVICE).many
