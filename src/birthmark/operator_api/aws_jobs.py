"""The operator interface of AWS IoT's jobs."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from birthmark.auth.permissions import Right
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
from birthmark.awsiot.rules.job_documents import parse_parameters, resolved
from birthmark.awsiot.rules.job_schedule import openings
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError, given_json
from birthmark.awsiot.wire.jobs import parse_document, parse_settings, placeholder_in, settings_of
from birthmark.errors import mended_by
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows

MOST_REASONS = 100
_HELP = "birthmark aws job create --help"
_GOES_ON = (JobStatus.SCHEDULED, JobStatus.IN_PROGRESS)


class NewJob(msgspec.Struct, forbid_unknown_fields=True):
    """A job; `targets` are `thing/NAME` and `thinggroup/NAME`, `settings` as CreateJob has them.

    `document` is an object, or the text of one, which stays as it is; `parameters` are those of the document.
    """

    job: str
    document: dict[str, Any] | str
    targets: list[str]
    continuous: bool = False
    description: str | None = None
    settings: dict[str, Any] = {}
    parameters: dict[str, str] = {}


class Force(msgspec.Struct, forbid_unknown_fields=True):
    """Whether what things are on is taken back, too."""

    force: bool = False


class JobsQuery(PageQuery):
    """Which page of the jobs, or of those of one status."""

    status: JobStatus | None = None


class ExecutionsQuery(PageQuery):
    """Which page of a job's executions, or of those of one status."""

    status: ExecutionStatus | None = None


def endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws job`."""

    async def jobs(asked: ApiRequest) -> Rows:
        query: JobsQuery = asked.query
        page = await aws.jobs.page(query.after, query.limit, status=_word(query.status))
        return Rows([_view(one) for one in page.items], page.last)

    async def job(asked: ApiRequest) -> Any:
        known = await aws.jobs.get(asked["name"])
        counts = await aws.jobs.executions.counts(known.job_id)
        return _whole(known, await aws.jobs.targets(known.job_id), counts, aws.jobs.clock.now())

    async def add_job(asked: ApiRequest) -> Any:
        given: NewJob = asked.body
        if wrong := [one for one in given.targets if not one.startswith(("thing/", "thinggroup/"))]:
            raise BodyInvalidError(detail=f"the target {wrong[0][:140]!r}", command=_HELP)
        with mended_by(_HELP, BodyInvalidError):
            document = parse_document(given.document if isinstance(given.document, str) else json.dumps(given.document))
            settings = parse_settings(given.settings)
        if (what := placeholder_in(document)) is not None:
            raise MemberNotServedError(member=f"document with {what}", operation="create", command=_HELP)
        with mended_by(_HELP, BodyInvalidError):
            made = await aws.jobs.create(
                parse_job_id(given.job),
                [aws.account.arn(*one.split("/", 1)) for one in given.targets],
                document,
                given.description,
                given_json(settings),
                is_continuous=given.continuous,
                parameters=parse_parameters(given.parameters, document),
                actor=asked.actor,
            )
        return _view(made)

    async def cancel_job(asked: ApiRequest) -> Any:
        made = await aws.jobs.cancel(asked["name"], None, None, force=asked.body.force, actor=asked.actor)
        return _view(made)

    async def remove_job(asked: ApiRequest) -> None:
        await aws.jobs.delete(asked["name"], force=asked.query.force, actor=asked.actor)

    async def executions(asked: ApiRequest) -> Rows:
        query: ExecutionsQuery = asked.query
        page = await aws.jobs.executions.of_job(asked["name"], _word(query.status), query.after, query.limit)
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
    async def pause_job(asked: ApiRequest) -> Any:
        return _view(await aws.jobs.pause(asked["name"], actor=asked.actor))

    async def resume_job(asked: ApiRequest) -> Any:
        return _view(await aws.jobs.resume(asked["name"], actor=asked.actor))

    async def reasons(asked: ApiRequest) -> Rows:
        return Rows([_reason(one) for one in await aws.jobs.executions.reasons(asked["name"], MOST_REASONS)], None)

    return [
        Endpoint("POST", f"{one}/pause", change, "Pause the rollout of a job.", pause_job),
        Endpoint("POST", f"{one}/resume", change, "Resume the rollout of a job.", resume_job),
        Endpoint(
            "GET", f"{one}/reasons", Right.READ, "List the failure reasons of a job, most frequent first.", reasons
        ),
    ]


def _reason(known: FailureReason) -> dict[str, Any]:
    return {
        "things": known.count,
        "status": known.status.value,
        "details": dict(known.details),
        "one": known.thing,
    }


def _word(status: JobStatus | ExecutionStatus | None) -> str:
    return "" if status is None else status.value


def _view(known: Job) -> dict[str, Any]:
    return {
        "job": known.job_id,
        "status": known.status.value,
        "selection": "CONTINUOUS" if known.is_continuous else "SNAPSHOT",
        "description": known.description or "",
        "created": known.created_at.isoformat(),
        "paused": None if known.paused_at is None else known.paused_at.isoformat(),
        "completed": None if known.completed_at is None else known.completed_at.isoformat(),
    }


def _whole(
    known: Job, targets: Sequence[JobTarget], counts: Mapping[ExecutionStatus, int], now: datetime
) -> dict[str, Any]:
    return _view(known) | {
        "targets": [one.target for one in targets],
        "goes_out": known.status in _GOES_ON and any(not one.is_done for one in targets),
        "opens": [one.isoformat() for one in openings(settings_of(known.settings), now)],
        "things": {status.value: counts[status] for status in ExecutionStatus if status in counts},
        "reason": known.reason_code,
        "comment": known.comment,
        "settings": dict(known.settings),
        "document": json.loads(resolved(known.document, known.parameters)),
    }


def _execution(known: JobExecution) -> dict[str, Any]:
    return {
        "thing": known.thing,
        "status": known.status.value,
        "number": known.number,
        "version": known.version,
        "details": dict(known.details),
        "queued": known.queued_at.isoformat(),
        "started": None if known.started_at is None else known.started_at.isoformat(),
        "updated": known.updated_at.isoformat(),
    }
