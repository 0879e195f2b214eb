"""Jobs, their targets, their executions and the notifications sent to devices.

Every write of a job or an execution requires the row to be unchanged since it was read. `aws_job_notices` has a row for
each thing that ever had a job: the last notification, and the time since when one is pending.
"""

from typing import Any

from sqlalchemy import (
    Executable,
    Index,
    Table,
    Text,
    and_,
    bindparam,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from birthmark.awsiot.model import (
    FAILS,
    GOES_ON,
    PENDING,
    ExecutionStatus,
    Job,
    JobExecution,
    JobStatus,
    JobTarget,
    JobTemplate,
)
from birthmark.awsiot.store.registry import lines, members, things
from birthmark.store import Statement, insert, metadata, partial_index, statement
from birthmark.store.compiled_statements import Engine
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_locked, guard_unchanged, insert_into, page, remove

MAX_PENDING = 100
"""Maximum number of pending executions of a thing that one query reads."""

JOBS = RowMapper(Job, is_continuous="continuous", force_canceled="forced")
jobs = JOBS.table("aws_jobs", "job_id")
Index("aws_jobs_status", jobs.c.status, jobs.c.job_id)
TARGETS = RowMapper(JobTarget, is_done="done", after="reached")
job_targets = TARGETS.table("aws_job_targets", "job_id", "target")
EXECUTIONS = RowMapper(JobExecution, force_canceled="forced")
executions = EXECUTIONS.table("aws_job_executions", "job_id", "thing")
_IS_PENDING = or_(*(executions.c.status == status.value for status in sorted(PENDING)))
Index("aws_job_executions_status", executions.c.job_id, executions.c.status, executions.c.thing)
Index("aws_job_executions_thing", executions.c.thing, executions.c.status, executions.c.queued_at, executions.c.job_id)
_IS_DUE = executions.c.due_at.is_not(None)
partial_index("aws_job_executions_due", executions.c.due_at, condition=_IS_DUE)
TEMPLATES = RowMapper(JobTemplate)
job_templates = TEMPLATES.table("aws_job_templates", "template_id")
notices = Table(
    "aws_job_notices",
    metadata,
    text("thing", key=True),
    number("owed_at", optional=True),
    text("listed"),
    text("next"),
    number("revision"),
)
_IS_OWED = notices.c.owed_at.is_not(None)
partial_index("aws_job_notices_owed", notices.c.owed_at, condition=_IS_OWED)

# ---- jobs

ADD_JOB = insert(jobs, ignore_existing=True)
GET_JOB = find(jobs)
_STATE = ("status", "forced", "reason_code", "comment", "description", "settings", "updated_at", "completed_at")
CHANGE_JOB = change(jobs, (*_STATE, "rolled", "rolled_at", "paused_at", "revision"), "job_id", "revision")
JOB_IS_THERE = guard_unchanged(jobs, "job_id")
JOB_IS_SAME = guard_unchanged(jobs, "job_id", "revision")
JOB_GOES_ON = guard_locked(jobs, "job_id", jobs.c.status == JobStatus.IN_PROGRESS.value)
_FITS = (
    or_(bindparam("status", type_=Text) == "", jobs.c.status == bindparam("status", type_=Text)),
    or_(bindparam("continuous") == -1, jobs.c.continuous == bindparam("continuous")),
    or_(
        bindparam("target", type_=Text) == "",
        exists().where(job_targets.c.job_id == jobs.c.job_id, job_targets.c.target == bindparam("target", type_=Text)),
    ),
)
LIST_JOBS = page(jobs, "job_id", *_FITS)
ACTIVE = page(jobs, "job_id", jobs.c.status == JobStatus.IN_PROGRESS.value)
SCHEDULED = page(jobs, "job_id", jobs.c.status == JobStatus.SCHEDULED.value)
_GOES_ON = or_(*(jobs.c.status == status.value for status in sorted(GOES_ON)))
COUNT_ACTIVE = statement(select(func.count().label("count")).where(_GOES_ON))
_still_pending = exists().where(
    executions.c.job_id == jobs.c.job_id,
    _IS_PENDING,
)
COMPLETE = statement(
    update(jobs)
    .where(jobs.c.job_id == bindparam("key_job_id"), jobs.c.revision == bindparam("key_revision"), ~_still_pending)
    .values(
        status=JobStatus.COMPLETED.value,
        updated_at=bindparam("updated_at"),
        completed_at=bindparam("updated_at"),
        revision=jobs.c.revision + 1,
    )
)
ONE_PENDING = find(executions, "job_id", _IS_PENDING, of=("thing",), limit=1)
# Jobs that have ended or are being deleted, and have executions that must follow.
BEHIND = statement(
    select(jobs)
    .where(
        or_(
            jobs.c.status == JobStatus.DELETING.value,
            and_(
                jobs.c.status == JobStatus.CANCELED.value,
                exists().where(
                    executions.c.job_id == jobs.c.job_id,
                    or_(
                        executions.c.status == ExecutionStatus.QUEUED.value,
                        and_(executions.c.status == ExecutionStatus.IN_PROGRESS.value, jobs.c.forced == 1),
                    ),
                ),
            ),
        )
    )
    .order_by(jobs.c.job_id)
    .limit(100)
)
STOP_JOB = change(jobs, ("status",), "job_id", _GOES_ON)
PAUSE_JOB = change(jobs, ("paused_at",), "job_id", _GOES_ON)
DELETE_JOB = remove(jobs, "job_id", jobs.c.status == JobStatus.DELETING.value)
DELETE_TARGETS = remove(job_targets, "job_id")

# ---- targets

ADD_TARGET = insert(job_targets, ignore_existing=True)
TARGETS_OF = find(job_targets, "job_id", order=job_targets.c.target, limit=200)
REACHED = change(job_targets, ("reached", "done"), "job_id", "target")
_NOT_YET = ~exists().where(
    executions.c.job_id == bindparam("job_id", type_=Text), executions.c.thing == members.c.thing
)
NEW_IN_GROUP = statement(
    select(members.c.thing)
    .distinct()
    .join(lines, lines.c.thing_group == members.c.thing_group)
    .where(lines.c.ancestor == bindparam("thing_group"), members.c.thing > bindparam("after"), _NOT_YET)
    .order_by(members.c.thing)
    .limit(bindparam("limit"))
)
"""Things of a group and its descendants that have no execution of a job."""
_IS_OVER = ~_IS_PENDING
REJOINED_IN_GROUP = statement(
    select(executions)
    .distinct()
    .join(members, members.c.thing == executions.c.thing)
    .join(lines, lines.c.thing_group == members.c.thing_group)
    .where(
        executions.c.job_id == bindparam("job_id"),
        lines.c.ancestor == bindparam("thing_group"),
        _IS_OVER,
        members.c.joined_at > executions.c.updated_at,
    )
    .order_by(executions.c.thing)
    .limit(bindparam("limit"))
)
"""Executions of a job that ended before their thing joined the group or one of its descendants."""
_as_thing = literal("thing/", Text) + executions.c.thing
_as_group = literal("thinggroup/", Text) + lines.c.ancestor
LEFT_TARGETS = statement(
    select(executions)
    .where(
        executions.c.job_id == bindparam("job_id"),
        executions.c.status == ExecutionStatus.QUEUED.value,
        ~exists().where(job_targets.c.job_id == executions.c.job_id, job_targets.c.target == _as_thing),
        ~exists().where(
            members.c.thing == executions.c.thing,
            lines.c.thing_group == members.c.thing_group,
            job_targets.c.job_id == executions.c.job_id,
            job_targets.c.target == _as_group,
        ),
    )
    .order_by(executions.c.thing)
    .limit(250)
)
"""Queued executions of a job whose thing is in none of its targets anymore."""


# ---- executions


def _adding(engine: Engine) -> Executable:
    """Return an INSERT of an execution for a registered thing, unless it exists already."""
    known = {column.name: bindparam(column.name, type_=column.type) for column in executions.columns}
    made = select(*known.values()).where(things.c.name == known["thing"])
    clause = insert_into(engine, executions)
    done: Executable = clause.from_select([*known], made).on_conflict_do_nothing()
    return done


ADD_EXECUTION = Statement(_adding)
GET_EXECUTION = find(executions)
_CHANGED = ("number", "status", "version", "details", "forced", "queued_at", "started_at", "updated_at")
CHANGE_EXECUTION = change(
    executions, (*_CHANGED, "ends_at", "step_ends_at", "due_at"), *("job_id", "thing", "number", "version")
)
_AT_WORK = and_(
    executions.c.status == ExecutionStatus.IN_PROGRESS.value,
    jobs.c.status != JobStatus.DELETING.value,
    or_(jobs.c.status != JobStatus.CANCELED.value, jobs.c.forced == 0),
)
_WAITS = and_(executions.c.status == ExecutionStatus.QUEUED.value, jobs.c.status == JobStatus.IN_PROGRESS.value)
_BY_TURN = (
    executions.c.status,
    executions.c.queued_at,
    executions.c.job_id,
)  # in index order: no sort
_OF_THING = and_(
    executions.c.thing == bindparam("thing"),
    executions.c.status.in_([literal(one.value, Text) for one in sorted(PENDING)]),
    or_(_AT_WORK, _WAITS),
)
# Executions that the job does not currently cancel, the next one first: IN_PROGRESS before QUEUED.
PENDING_OF = statement(
    select(executions)
    .join(jobs, jobs.c.job_id == executions.c.job_id)
    .where(_OF_THING)
    .order_by(*_BY_TURN)
    .limit(bindparam("limit"))
)
_OF_STATUS = or_(bindparam("status", type_=Text) == "", executions.c.status == bindparam("status", type_=Text))
EXECUTIONS_OF_JOB = page(executions, "thing", "job_id", _OF_STATUS)
_OF_ONE_JOB = or_(bindparam("job_id", type_=Text) == "", executions.c.job_id == bindparam("job_id", type_=Text))
EXECUTIONS_OF_THING = page(executions, "job_id", "thing", _OF_STATUS, _OF_ONE_JOB)
COUNTS = statement(
    select(executions.c.status, func.count().label("count"))
    .where(executions.c.job_id == bindparam("job_id"))
    .group_by(executions.c.status)
)
# Failure reasons of a job, as devices reported them, each with its count and one example device.
REASONS = statement(
    select(
        executions.c.status,
        executions.c.details,
        func.count().label("count"),
        func.min(executions.c.thing).label("thing"),
    )
    .where(
        executions.c.job_id == bindparam("job_id"),
        or_(*(executions.c.status == status.value for status in sorted(FAILS))),
    )
    .group_by(executions.c.status, executions.c.details)
    .order_by(func.count().desc(), executions.c.status, executions.c.details)
    .limit(bindparam("limit"))
)
_WHICH = (jobs.c.created_at.label("its_beginning"), jobs.c.revision.label("its_revision"))
NEXT_OF = statement(
    select(executions, *_WHICH)
    .join(jobs, jobs.c.job_id == executions.c.job_id)
    .where(_OF_THING)
    .order_by(*_BY_TURN)
    .limit(1)
)
ONE_OF = statement(
    select(executions, *_WHICH)
    .join(jobs, jobs.c.job_id == executions.c.job_id)
    .where(executions.c.job_id == bindparam("job_id"), executions.c.thing == bindparam("thing"))
)
"""An execution with the columns that identify its job's current state."""
OF_STATUS = find(executions, "job_id", "status", order=executions.c.thing, limit=250)
ANY_OF_JOB = find(executions, "job_id", order=executions.c.thing, limit=250)
OVERDUE = statement(
    select(executions).where(executions.c.due_at <= bindparam("now")).order_by(executions.c.due_at).limit(250)
)
DELETE_EXECUTION = remove(executions, "job_id", "thing", "number", "version")
REMOVE_THING = statement(
    update(executions)
    .where(executions.c.thing == bindparam("key_thing"), _IS_PENDING)
    .values(
        status=literal(ExecutionStatus.REMOVED.value, Text),
        version=executions.c.version + 1,
        updated_at=bindparam("updated_at"),
        ends_at=null(),
        step_ends_at=null(),
        due_at=null(),
    )
)
"""Removes a deleted thing from the targets."""

# ---- device messages


def _owing(engine: Engine) -> Executable:
    values: dict[str, Any] = {"thing": bindparam("thing"), "owed_at": bindparam("owed_at")}
    values |= {"listed": literal("", Text), "next": literal("", Text), "revision": literal(1)}
    clause = insert_into(engine, notices).values(values)
    done: Executable = clause.on_conflict_do_update(
        index_elements=["thing"], set_={"owed_at": clause.excluded.owed_at, "revision": notices.c.revision + 1}
    )
    return done


def _forgetting(engine: Engine) -> Executable:
    unknown = literal(UNKNOWN, Text)
    values: dict[str, Any] = {"thing": bindparam("thing"), "owed_at": null()}
    values |= {"listed": unknown, "next": unknown, "revision": literal(1)}
    clause = insert_into(engine, notices).values(values)
    set_ = {"owed_at": null(), "listed": unknown, "next": unknown, "revision": notices.c.revision + 1}
    done: Executable = clause.on_conflict_do_update(index_elements=["thing"], set_=set_)
    return done


UNKNOWN = "?"
"""Placeholder for the last notification after a change without a connected device.

It forces the next notification.
"""
OWE = Statement(_owing)
FORGET = Statement(_forgetting)
NOTICE = find(notices, "thing", notices.c.owed_at.is_not(None))
TELL = change(notices, ("owed_at", "listed", "next", "revision"), "thing", "revision")
OWED = statement(
    select(notices.c.thing).where(notices.c.owed_at <= bindparam("before")).order_by(notices.c.owed_at).limit(250)
)
DROP_NOTICE = remove(notices, "thing")

# ---- templates

ADD_TEMPLATE = insert(job_templates, ignore_existing=True)
GET_TEMPLATE = find(job_templates)
LIST_TEMPLATES = page(job_templates, "template_id")
DELETE_TEMPLATE = remove(job_templates, "template_id")
TEMPLATE_IS_THERE = guard_unchanged(job_templates, "template_id")
