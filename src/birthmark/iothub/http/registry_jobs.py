"""Import and export of the registry (IoT Hub REST reference, "Service", `/jobs`)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.blob_storage.wire import ACCOUNT_PATH
from birthmark.iothub.http.authorization_and_errors import Authorized, Record, guarded, hub_of, time_of
from birthmark.iothub.model import Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import READ, WRITE
from birthmark.iothub.service.registry_jobs import IMPORT_RIGHTS
from birthmark.iothub.store import RegistryJob
from birthmark.iothub.wire.registry_jobs import parse_registry_job
from birthmark.net.http_route_wrappers import Handler


def routes(iothub: IotHub, authorized: Authorized, record: Record) -> list[Route]:
    """Return the routes; `record` logs a refusal and returns its tracking id."""
    jobs = iothub.registry_jobs

    async def create(request: Request) -> Response:
        hub = hub_of(iothub.hubs, request)
        asked = parse_registry_job(await request.body())
        actor = ""
        for right in IMPORT_RIGHTS if asked.is_import else (Right.ENROLL,):
            actor = authorized(request, hub, WRITE, "jobs/create", right)
        return JSONResponse(_view(await jobs.create(hub, asked, request.headers["host"], actor=actor)))

    async def listing(request: Request) -> Response:
        hub = _reading(request)
        return JSONResponse([_view(one) for one in await jobs.all(hub)])

    async def one(request: Request) -> Response:
        job_id = request.path_params["job_id"]
        if request.method == "GET":
            return JSONResponse(_view(await jobs.get(_reading(request), job_id)))
        hub = hub_of(iothub.hubs, request)
        actor = authorized(request, hub, WRITE, f"jobs/{job_id}", Right.ENROLL)
        if (await jobs.get(hub, job_id)).is_import:
            for right in IMPORT_RIGHTS:
                authorized(request, hub, WRITE, f"jobs/{job_id}", right)
        return JSONResponse(_view(await jobs.cancel(hub, job_id, actor=actor)))

    def _reading(request: Request) -> Hub:
        hub = hub_of(iothub.hubs, request)
        authorized(request, hub, READ, request.scope["path"].strip("/"), Right.READ)
        return hub

    def at(path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, guarded(handler, record), methods=list(methods))

    return [
        at("/jobs/create", create, "POST"),
        at("/jobs", listing, "GET"),
        at("/jobs/{job_id}", one, "GET", "DELETE"),
    ]


def _view(job: RegistryJob) -> dict[str, Any]:
    """Return a job as the service API shows it; container URIs are without their signatures."""
    base = f"https://{job.host}/{ACCOUNT_PATH}"
    return {
        "jobId": job.job_id,
        "type": "import" if job.is_import else "export",
        "status": job.status,
        "progress": 100 if job.status == "completed" else min(99, job.done * 100 // max(job.total, 1)),
        "startTimeUtc": time_of(job.started_at),
        "endTimeUtc": None if job.ended_at is None else time_of(job.ended_at),
        "inputBlobContainerUri": f"{base}/{job.input_container}" if job.is_import else None,
        "inputBlobName": job.input_blob or None,
        "outputBlobContainerUri": f"{base}/{job.output_container}",
        "outputBlobName": job.output_blob,
        "excludeKeysInExport": job.excludes_keys,
        "storageAuthenticationType": "keyBased",
        "includeConfigurations": False,
        "failureReason": job.failure or None,
    }
