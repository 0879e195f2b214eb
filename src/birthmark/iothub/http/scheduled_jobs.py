"""Scheduled jobs over HTTPS (IoT Hub REST reference, "Jobs"): create, read, list, cancel."""

import base64
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.iothub.http.authorization_and_errors import Authorized, Record, guarded, hub_of, page_size_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import SERVICE
from birthmark.iothub.service.queries import QueryMarkerError
from birthmark.iothub.wire.scheduled_jobs import check_job_id, job_json, parse_job_filter, parse_job_order

_MODEL_OF_PYTHON, _COMMAND_LINE = "iothubgatewayserviceapis/", "IoTPlatformCliExtension/"
_to_json = msgspec.json.Encoder().encode


def is_read_as_object(user_agent: str) -> bool:
    """Return whether a client reads a list of jobs as an object: the Python SDK fails on the array that others read."""
    return _MODEL_OF_PYTHON in user_agent and _COMMAND_LINE not in user_agent


def routes(iothub: IotHub, authorized: Authorized, record: Record) -> list[Route]:
    """Return the routes of scheduled jobs; `record` logs a refusal and returns its tracking id."""
    jobs = iothub.jobs

    async def one(request: Request) -> Response:
        job_id, hub = request.path_params["job_id"], hub_of(iothub.hubs, request)
        right = Right.READ if request.method == "GET" else Right.OPERATE
        actor = authorized(request, hub, SERVICE, f"jobs/v2/{job_id}", right)
        if request.method == "PUT":
            order = parse_job_order(await request.body(), check_job_id(job_id))
            made = await jobs.create(hub, job_id, order, actor=actor)
        else:
            made = await jobs.get(hub.name, job_id)
        return JSONResponse(job_json(made, jobs.now()))

    async def cancel(request: Request) -> Response:
        job_id, hub = request.path_params["job_id"], hub_of(iothub.hubs, request)
        actor = authorized(request, hub, SERVICE, f"jobs/v2/{job_id}/cancel", Right.OPERATE)
        return JSONResponse(job_json(await jobs.cancel(hub, job_id, actor=actor), jobs.now()))

    async def listing(request: Request) -> Response:
        hub = hub_of(iothub.hubs, request)
        authorized(request, hub, SERVICE, "jobs/v2/query", Right.READ)
        kind, status = parse_job_filter(request.query_params.get("jobType"), request.query_params.get("jobStatus"))
        after, size = _after(request.headers.get("x-ms-continuation")), page_size_of(request)
        found = await jobs.page(hub, job_type=kind, status=status, after=after, limit=size + 1)
        items = [job_json(job, jobs.now()) for job in found[:size]]
        marker = _marker(found[size - 1].job_id) if len(found) > size else None
        headers = {"x-ms-item-type": "JobResponse"} | ({} if marker is None else {"x-ms-continuation": marker})
        shown: Any = items
        if is_read_as_object(request.headers.get("user-agent", "")):
            shown = {"type": "jobResponse", "items": items, "continuationToken": marker}
        return Response(_to_json(shown), 200, headers, "application/json")

    return [
        Route("/jobs/v2/query", guarded(listing, record), methods=["GET"]),
        Route("/jobs/v2/{job_id}", guarded(one, record), methods=["GET", "PUT"]),
        Route("/jobs/v2/{job_id}/cancel", guarded(cancel, record), methods=["POST"]),
    ]


def _marker(job_id: str) -> str:
    return base64.urlsafe_b64encode(job_id.encode()).decode()


def _after(marker: str | None) -> str:
    """Return the last job of the previous page. Raise `QueryMarkerError`."""
    if not marker:
        return ""
    try:
        return check_job_id(base64.urlsafe_b64decode(marker.encode()).decode())
    except (ValueError, UnicodeError) as error:
        raise QueryMarkerError(detail="the marker was not returned with a page") from error
