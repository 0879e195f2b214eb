"""The operator interface of AWS IoT's jobs."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.model import (
    ExecutionStatus,
    FailureReason,
    Job,
    JobExecution,
    JobStatus,
    JobTarget,
    MemberNotServedError,
    parse_job_id,
)
from birthmark.awsiot.rules.job_document_placeholders import parse_parameters, substitute_parameters
from birthmark.awsiot.rules.job_schedule import openings
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError, given_json
from birthmark.awsiot.wire.jobs import find_unsupported_placeholder, parse_document, parse_settings, settings_of
from birthmark.errors import add_fix_command
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows

MOST_REASONS = 100
_HELP = "birthmark aws job create --help"
_GOES_ON = (JobStatus.SCHEDULED, JobStatus.IN_PROGRESS)


class NewJob(msgspec.Struct, forbid_unknown_fields=True):
    """A job; `targets` are `thing/NAME` and `thinggroup/NAME`, `settings` match those of CreateJob.

    `document` is an object or its text, which stays unchanged; `parameters` are the document's parameters.
    """

    job: str
    document: dict[str, Any] | str
    targets: list[str]
    continuous: bool = False
    description: str | None = None
    settings: dict[str, Any] = {}
    parameters: dict[str, str] = {}


class Force(msgspec.Struct, forbid_unknown_fields=True):
    """Whether executions that are in progress are canceled, too."""

    force: bool = False


class JobsQuery(PageQuery):
    """Page of the jobs, optionally of one status."""

    status: JobStatus | None = None


class ExecutionsQuery(PageQuery):
    """Page of a job's executions, optionally of one status."""

    status: ExecutionStatus | None = None


def endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws job`."""

    async def jobs(request: ApiRequest) -> Rows:
        query: JobsQuery = request.query
        page = await aws.jobs.page(query.after, query.limit, status=_word(query.status))
        return Rows([_view(one) for one in page.items], page.last)

    async def job(request: ApiRequest) -> Any:
        known = await aws.jobs.get(request["name"])
        counts = await aws.jobs.executions.counts(known.job_id)
        return _whole(known, await aws.jobs.targets(known.job_id), counts, aws.jobs.clock.now())

    async def add_job(request: ApiRequest) -> Any:
        given: NewJob = request.body
        if wrong := [one for one in given.targets if not one.startswith(("thing/", "thinggroup/"))]:
            raise BodyInvalidError(detail=f"the target {wrong[0][:140]!r}", command=_HELP)
        with add_fix_command(_HELP, BodyInvalidError):
            document = parse_document(given.document if isinstance(given.document, str) else json.dumps(given.document))
            settings = parse_settings(given.settings)
        if (what := find_unsupported_placeholder(document)) is not None:
            raise MemberNotServedError(member=f"document with {what}", operation="create", command=_HELP)
        with add_fix_command(_HELP, BodyInvalidError):
            made = await aws.jobs.create(
                parse_job_id(given.job),
                [aws.account.arn(*one.split("/", 1)) for one in given.targets],
                document,
                given.description,
                given_json(settings),
                is_continuous=given.continuous,
                parameters=parse_parameters(given.parameters, document),
                actor=request.actor,
            )
        return _view(made)

    async def cancel_job(request: ApiRequest) -> Any:
        made = await aws.jobs.cancel(request["name"], None, None, force=request.body.force, actor=request.actor)
        return _view(made)

    async def remove_job(request: ApiRequest) -> None:
        await aws.jobs.delete(request["name"], force=request.query.force, actor=request.actor)

    async def executions(request: ApiRequest) -> Rows:
        query: ExecutionsQuery = request.query
        page = await aws.jobs.executions.of_job(request["name"], _word(query.status), query.after, query.limit)
        return Rows([_execution(one) for one in page.items], page.last)

    one, change = "/aws/jobs/{name}", Right.OPERATE
    return [
        Endpoint("GET", "/aws/jobs", Right.READ, "List jobs.", jobs, query=JobsQuery),
        Endpoint("GET", one, Right.READ, "Return a job with its execution counts.", job),
        Endpoint("POST", "/aws/jobs", change, "Create a job.", add_job, NewJob, status=201),
        Endpoint("POST", f"{one}/cancel", change, "Cancel a job.", cancel_job, Force),
        Endpoint("DELETE", one, change, "Delete a job and its executions.", remove_job, query=Force, status=204),
        Endpoint(
            *("GET", f"{one}/executions", Right.READ, "List the executions of a job.", executions),
            query=ExecutionsQuery,
        ),
        *_while_it_goes(aws, one, change),
    ]


def _while_it_goes(aws: AwsIot, one: str, change: Right) -> Sequence[Endpoint]:
    async def pause_job(request: ApiRequest) -> Any:
        return _view(await aws.jobs.pause(request["name"], actor=request.actor))

    async def resume_job(request: ApiRequest) -> Any:
        return _view(await aws.jobs.resume(request["name"], actor=request.actor))

    async def reasons(request: ApiRequest) -> Rows:
        return Rows([_reason(one) for one in await aws.jobs.executions.reasons(request["name"], MOST_REASONS)], None)

    return [
        Endpoint("POST", f"{one}/pause", change, "Pause the rollout of a job.", pause_job),
        Endpoint("POST", f"{one}/resume", change, "Resume the rollout of a job.", resume_job),
        Endpoint(
            "GET", f"{one}/reasons", Right.READ, "List the failure reasons of a job, most frequent first.", reasons
        ),
    ]


def _reason(reason: FailureReason) -> dict[str, Any]:
    return {
        "things": reason.count,
        "status": reason.status.value,
        "details": dict(reason.details),
        "one": reason.thing,
    }


def _word(status: JobStatus | ExecutionStatus | None) -> str:
    return "" if status is None else status.value


def _view(job: Job) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "status": job.status.value,
        "selection": "CONTINUOUS" if job.is_continuous else "SNAPSHOT",
        "description": job.description or "",
        "created": job.created_at.isoformat(),
        "paused": None if job.paused_at is None else job.paused_at.isoformat(),
        "completed": None if job.completed_at is None else job.completed_at.isoformat(),
    }


def _whole(
    job: Job, targets: Sequence[JobTarget], counts: Mapping[ExecutionStatus, int], now: datetime
) -> dict[str, Any]:
    return _view(job) | {
        "targets": [one.target for one in targets],
        "goes_out": job.status in _GOES_ON and any(not one.is_done for one in targets),
        "opens": [one.isoformat() for one in openings(settings_of(job.settings), now)],
        "things": {status.value: counts[status] for status in ExecutionStatus if status in counts},
        "reason": job.reason_code,
        "comment": job.comment,
        "settings": dict(job.settings),
        "document": json.loads(substitute_parameters(job.document, job.parameters)),
    }


def _execution(execution: JobExecution) -> dict[str, Any]:
    return {
        "thing": execution.thing,
        "status": execution.status.value,
        "number": execution.number,
        "version": execution.version,
        "details": dict(execution.details),
        "queued": execution.queued_at.isoformat(),
        "started": None if execution.started_at is None else execution.started_at.isoformat(),
        "updated": execution.updated_at.isoformat(),
    }
