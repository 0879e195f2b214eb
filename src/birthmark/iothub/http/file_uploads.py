"""File upload API of devices, and the endpoint for the files (IoT Hub REST reference, "Device", file upload)."""

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.blob_storage import http as blob_http
from birthmark.iothub.http.authorization_and_errors import Record
from birthmark.iothub.http.device_api import Sender, device_authenticator
from birthmark.iothub.model import Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.file_uploads import parse_upload, parse_upload_end
from birthmark.iothub.wire import BodyInvalidError


def routes(iothub: IotHub, record: Record) -> list[Route]:
    """Return the routes; `record` logs a refusal and returns its tracking id."""
    files, of_device = iothub.files, device_authenticator(iothub, record)

    async def begin(request: Request, hub: Hub, sender: Sender) -> Response:
        asked = parse_upload(await request.body())
        target = await files.begin(hub, sender.name, asked.blob_name)
        return JSONResponse(target.render(request.headers["host"]))

    async def end(request: Request, hub: Hub, sender: Sender) -> Response:
        told = parse_upload_end(await request.body())
        named = request.path_params.get("correlation_id")  # the form of earlier API versions
        if named is not None:
            if told.correlation_id not in {"", named}:
                raise BodyInvalidError(detail="correlationId differs from the one in the path")
            told = replace(told, correlation_id=named)
        await files.end(hub, sender.name, told, request.headers["host"])
        return Response(status_code=204)

    one = "/devices/{device_id}/files"
    found = [
        Route(one, of_device(begin), methods=["POST"]),
        Route(f"{one}/notifications", of_device(end), methods=["POST"]),
        Route(f"{one}/notifications/{{correlation_id}}", of_device(end), methods=["POST"]),
    ]
    if files.storage is not None:
        found += blob_http.routes(files.storage, files, record)
    return found
