"""Operator API of a hub's scheduled jobs: list, show, create, cancel."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.errors import add_fix_command
from birthmark.iothub.model import HubJob, HubJobDevice, HubJobType
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import BodyInvalidError
from birthmark.iothub.wire.scheduled_jobs import (
    DEFAULT_S,
    check_job_id,
    job_json,
    parse_job_filter,
    parse_job_order,
    shown_status,
)
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows

_HELP = "birthmark hub job create --help"


class NewHubJob(msgspec.Struct, forbid_unknown_fields=True):
    """A scheduled job with a method, or with tags and desired properties; `condition` selects its devices."""

    job: str
    condition: str
    method: str | None = None
    payload: Any = None
    response_timeout_s: int = 30
    connect_timeout_s: int = 0
    tags: dict[str, Any] | None = None
    desired: dict[str, Any] | None = None
    start: datetime | None = None
    max_s: int = DEFAULT_S


class HubJobsQuery(PageQuery):
    """Page of the scheduled jobs, optionally of one status."""

    status: str = ""


def endpoints(iothub: IotHub) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub job`."""
    hubs, jobs = iothub.hubs, iothub.jobs

    async def listing(request: ApiRequest) -> Rows:
        query: HubJobsQuery = request.query
        _, status = parse_job_filter(None, query.status)
        hub = hubs.by_name(request["name"])
        found = await jobs.page(hub, status=status, after=query.after, limit=query.limit + 1)
        page = found[: query.limit]
        return Rows([_view(one, jobs.now()) for one in page], page[-1].job_id if len(found) > len(page) else None)

    async def show(request: ApiRequest) -> Any:
        return job_json(await jobs.get(hubs.by_name(request["name"]).name, request["job"]), jobs.now())

    async def failed(request: ApiRequest) -> Rows:
        query: PageQuery = request.query
        hub = hubs.by_name(request["name"])
        await jobs.get(hub.name, request["job"])
        found = await jobs.failed(hub, request["job"], after=query.after, limit=query.limit + 1)
        page = found[: query.limit]
        return Rows([_device_view(one) for one in page], page[-1].name if len(found) > len(page) else None)

    async def create(request: ApiRequest) -> Any:
        given: NewHubJob = request.body
        with add_fix_command(_HELP, BodyInvalidError):
            order = parse_job_order(json.dumps(_wire_of(given)).encode(), check_job_id(given.job))
        hub = hubs.by_name(request["name"])
        return _view(await jobs.create(hub, given.job, order, actor=request.actor), jobs.now())

    async def cancel(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        return _view(await jobs.cancel(hub, request["job"], actor=request.actor), jobs.now())

    every, change = "/hubs/{name}/jobs", Right.OPERATE
    one = f"{every}/{{job}}"
    return [
        Endpoint("GET", every, Right.READ, "List scheduled jobs.", listing, query=HubJobsQuery),
        Endpoint("POST", every, change, "Create a scheduled job.", create, NewHubJob, status=201),
        Endpoint("GET", one, Right.READ, "Return a scheduled job with its device counts.", show),
        Endpoint("GET", f"{one}/failed", Right.READ, "List the failed devices of a job.", failed, query=PageQuery),
        Endpoint("POST", f"{one}/cancel", change, "Cancel a scheduled job.", cancel),
    ]


def _wire_of(given: NewHubJob) -> dict[str, Any]:
    """Return the job as a service client sends it, so that both interfaces validate alike."""
    content: dict[str, Any]
    kind = HubJobType.TWIN if given.method is None else HubJobType.METHOD
    update = {"tags": given.tags, "properties": {"desired": given.desired}, "etag": "*"}
    content = {"updateTwin": update} if given.tags is not None or given.desired is not None else {}
    if given.method is not None:
        content["cloudToDeviceMethod"] = {
            "methodName": given.method,
            "payload": given.payload,
            "responseTimeoutInSeconds": given.response_timeout_s,
            "connectTimeoutInSeconds": given.connect_timeout_s,
        }
    return {
        **content,
        "jobId": given.job,
        "type": kind.value,
        "queryCondition": given.condition,
        "startTime": None if given.start is None else given.start.isoformat(),
        "maxExecutionTimeInSeconds": given.max_s,
    }


def _view(job: HubJob, now: datetime) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "type": job.type.value,
        "status": shown_status(job, now),
        "devices": job.total,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "start": (job.started_at or job.starts_at).isoformat(),
        "end": None if job.ended_at is None else job.ended_at.isoformat(),
    }


def _device_view(one: HubJobDevice) -> dict[str, Any]:
    ended = None if one.ended_at is None else one.ended_at.isoformat()
    return {"device": one.name, "error": one.error_code, "reason": one.error, "ended": ended}
