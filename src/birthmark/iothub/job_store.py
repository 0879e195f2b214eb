"""Scheduled jobs of hubs, and their devices.

Each write of a device requires its status to be unchanged, and changes the counters of its job in the same commit.
"""

from typing import Any

from sqlalchemy import ColumnElement, Index, Text, bindparam, func, literal, literal_column, or_, select, tuple_, update

from birthmark.iothub.model import HubJob, HubJobDevice, HubJobDeviceStatus, HubJobStatus
from birthmark.store import insert, partial_index, statement
from birthmark.store.compiled_statements import Statement
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, remove

EACH = 200
"""Number of devices per read or write."""

JOBS = RowMapper(HubJob)
jobs = JOBS.table("hub_jobs", "hub", "job_id")
_IS_OPEN = jobs.c.is_open == literal_column("1")
partial_index("hub_jobs_open", jobs.c.hub, jobs.c.status, jobs.c.starts_at, jobs.c.job_id, condition=_IS_OPEN)
Index("hub_jobs_status", jobs.c.hub, jobs.c.status, jobs.c.job_id)
Index("hub_jobs_ended", jobs.c.ended_at)

JOB_DEVICES = RowMapper(HubJobDevice)
job_devices = JOB_DEVICES.table("hub_job_devices", "hub", "job_id", "name")
Index("hub_job_devices_status", *(job_devices.c[one] for one in ("hub", "job_id", "status", "name")))
Index("hub_job_devices_device", *(job_devices.c[one] for one in ("hub", "device_id", "job_id", "name")))
_IS_RUNNING = job_devices.c.status == literal_column(f"'{HubJobDeviceStatus.RUNNING.value}'")
partial_index("hub_job_devices_holder", job_devices.c.holder, condition=_IS_RUNNING)

# ---- jobs

ADD = insert(jobs, ignore_existing=True)
GET = find(jobs)
_FITS = (
    or_(bindparam("type", type_=Text) == "", jobs.c.type == bindparam("type", type_=Text)),
    or_(bindparam("status", type_=Text) == "", jobs.c.status == bindparam("status", type_=Text)),
    jobs.c.starts_at > bindparam("starts_after"),
    jobs.c.starts_at <= bindparam("starts_until"),
)
PAGE = statement(
    select(jobs)
    .where(jobs.c.hub == bindparam("hub"), jobs.c.job_id > bindparam("after", type_=Text), *_FITS)
    .order_by(jobs.c.job_id)
    .limit(bindparam("limit"))
)
COUNT_OPEN = statement(select(func.count().label("count")).where(jobs.c.hub == bindparam("hub"), _IS_OPEN))
OPEN_HUBS = statement(
    select(jobs.c.hub)
    .distinct()
    .where(jobs.c.hub > bindparam("after", type_=Text), _IS_OPEN)
    .order_by(jobs.c.hub)
    .limit(EACH)
)
STARTED = statement(
    select(jobs)
    .where(jobs.c.hub == bindparam("hub"), _IS_OPEN, jobs.c.status != literal(HubJobStatus.SCHEDULED.value, Text))
    .order_by(jobs.c.job_id)
)
"""Jobs that have started and have devices that are not done."""
WAITING = statement(
    select(jobs)
    .where(jobs.c.hub == bindparam("hub"), _IS_OPEN, jobs.c.status == literal(HubJobStatus.SCHEDULED.value, Text))
    .order_by(jobs.c.starts_at, jobs.c.job_id)
    .limit(bindparam("limit"))
)
"""Jobs that have not started, the next one first."""
_STATE = ("status", "started_at", "ended_at", "reason", "is_open", "revision")
CHANGE = change(jobs, _STATE, "hub", "job_id", "revision")
_THIS = (jobs.c.hub == bindparam("key_hub"), jobs.c.job_id == bindparam("key_job_id"))
_GOES_ON = jobs.c.status == literal(HubJobStatus.RUNNING.value, Text)
REACHED = statement(
    update(jobs)
    .where(*_THIS, _GOES_ON, jobs.c.reached == bindparam("key_reached", type_=Text))
    .values(
        reached=bindparam("reached"),
        is_selected=bindparam("is_selected"),
        total=jobs.c.total + bindparam("more"),
    )
)
"""Progress of a running job's selection, from where it was read."""


def _count(column: str) -> ColumnElement[int]:
    counted: ColumnElement[int] = jobs.c[column] + bindparam(f"more_{column}", type_=jobs.c[column].type)
    return counted


_COUNTED = {name: _count(name) for name in ("running", "succeeded", "failed", "canceled")}
COUNT_IF_RUNNING = statement(update(jobs).where(*_THIS, _GOES_ON).values(_COUNTED))
"""Change the counters of a job that was neither cancelled nor ended."""
COUNT = statement(update(jobs).where(*_THIS).values(_COUNTED))
_done = jobs.c.succeeded + jobs.c.failed + jobs.c.canceled
CLOSE = statement(
    update(jobs)
    .where(*_THIS, jobs.c.revision == bindparam("key_revision"), jobs.c.total == _done)
    .values({name: bindparam(name) for name in _STATE})
)
"""End a job whose devices are all done."""
ENDED = statement(
    select(jobs)
    .where(jobs.c.ended_at <= bindparam("until"), jobs.c.is_open == literal_column("0"))
    .order_by(jobs.c.ended_at)
    .limit(EACH)
)
_HAS_NOT_ENDED = or_(_GOES_ON, jobs.c.status == literal(HubJobStatus.SCHEDULED.value, Text))
STOP = change(jobs, ("status",), "hub", "job_id", _HAS_NOT_ENDED)
DELETE = remove(jobs, "hub", "job_id", jobs.c.is_open == literal_column("0"))

# ---- devices

ADD_DEVICE = insert(job_devices)
PENDING = statement(
    select(job_devices)
    .where(
        job_devices.c.hub == bindparam("hub"),
        job_devices.c.job_id == bindparam("job_id"),
        job_devices.c.status == literal(HubJobDeviceStatus.PENDING.value, Text),
        job_devices.c.name > bindparam("after", type_=Text),
    )
    .order_by(job_devices.c.name)
    .limit(EACH)
)
CHANGE_DEVICE = change(
    job_devices,
    ("status", "updated_at", "started_at", "ended_at", "holder", "outcome", "error_code", "error"),
    *("hub", "job_id", "name", "status"),
)
END_PENDING = statement(
    update(job_devices)
    .where(
        job_devices.c.hub == bindparam("key_hub"),
        job_devices.c.job_id == bindparam("key_job_id"),
        job_devices.c.status == literal(HubJobDeviceStatus.PENDING.value, Text),
        job_devices.c.name <= bindparam("key_last", type_=Text),
    )
    .values({name: bindparam(name) for name in ("status", "updated_at", "ended_at", "error_code", "error")})
)
"""End the devices of a job that have not begun, up to a name."""
HELD = statement(
    select(job_devices)
    .where(_IS_RUNNING, or_(bindparam("holder", type_=Text) == "", job_devices.c.holder == bindparam("holder")))
    .limit(EACH)
)
RUNNING_SINCE = statement(
    select(job_devices)
    .where(
        job_devices.c.hub == bindparam("hub"),
        job_devices.c.job_id == bindparam("job_id"),
        job_devices.c.status == literal(HubJobDeviceStatus.RUNNING.value, Text),
        job_devices.c.started_at <= bindparam("until"),
    )
    .order_by(job_devices.c.name)
    .limit(EACH)
)
"""Devices whose call has begun before a time."""
SOME_OF_JOB = statement(
    select(job_devices.c.name)
    .where(job_devices.c.hub == bindparam("hub"), job_devices.c.job_id == bindparam("job_id"))
    .order_by(job_devices.c.name)
    .limit(EACH)
)
DELETE_DEVICES = remove(job_devices, "hub", "job_id", job_devices.c.name <= bindparam("last", type_=Text))
_AFTER = tuple_(job_devices.c.job_id, job_devices.c.name) > tuple_(
    bindparam("after_job", type_=Text), bindparam("after_name", type_=Text)
)


def _devices_page(*columns: str) -> Statement:
    """Return a SELECT of a hub's next devices in jobs, by job and name, that have these values."""
    known = (job_devices.c[name] == bindparam(name, type_=Text) for name in columns)
    return statement(
        select(job_devices)
        .where(job_devices.c.hub == bindparam("hub"), *known, _AFTER)
        .order_by(job_devices.c.job_id, job_devices.c.name)
        .limit(bindparam("limit"))
    )


DEVICES_PAGES: dict[tuple[str, ...], Statement] = {
    columns: _devices_page(*columns) for columns in ((), ("job_id",), ("job_id", "status"), ("device_id",))
}
FAILED_OF_JOB = statement(
    select(job_devices)
    .where(
        job_devices.c.hub == bindparam("hub"),
        job_devices.c.job_id == bindparam("job_id"),
        job_devices.c.status == literal(HubJobDeviceStatus.FAILED.value, Text),
        job_devices.c.name > bindparam("after", type_=Text),
    )
    .order_by(job_devices.c.name)
    .limit(bindparam("limit"))
)
DELETE_HUB = (remove(job_devices, "hub"), remove(jobs, "hub"))


def key_of(job: HubJob | HubJobDevice) -> dict[str, Any]:
    """Return the statement parameters that identify a job."""
    return {"key_hub": job.hub, "key_job_id": job.job_id}


def counted(*, running: int = 0, succeeded: int = 0, failed: int = 0, canceled: int = 0) -> dict[str, int]:
    """Return the statement parameters of changed counters."""
    return {
        "more_running": running,
        "more_succeeded": succeeded,
        "more_failed": failed,
        "more_canceled": canceled,
    }
