"""IoT Hub's service REST: the identity registry (IoT Hub REST reference, "Service - Devices")."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.iothub import wire
from birthmark.iothub.errors import http_error
from birthmark.iothub.model import Device, Hub
from birthmark.iothub.ports import Presence
from birthmark.iothub.rules.messages import PathNotServedError
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs import READ, WRITE, Hubs
from birthmark.net.refusing import Handler, refusing
from birthmark.text import whole_number

_MAX_LIST = 1000
_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# First path segments of the hub's REST interface, of which nothing is served (REST reference, "Service").
_UNSERVED = ("jobs", "configurations", "messages", "digitaltwins", "modules", "serviceStats", "file", "query")
Record = Callable[[BirthmarkError, Request], str]


def routes(iothub: IotHub, presence: Presence, record: Record) -> list[Route]:
    """Return the registry's routes; `record` files a refusal and returns its tracking id."""
    hubs, registry = iothub.hubs, iothub.registry

    def view_of(device: Device) -> dict[str, Any]:
        at = presence.connected_since(device.hub, device.device_id)
        activity = wire.NEVER if at is None else wire.registry_time(at)
        return wire.device_json(device, is_connected=at is not None, last_activity=activity)

    async def one(request: Request) -> Response:
        device_id = request.path_params["device_id"]
        hub = _hub(hubs, request)
        allowed = READ if request.method == "GET" else WRITE
        policy = hubs.authorize(hub, request.headers.get("authorization"), allowed, f"devices/{device_id}")
        etag = _etag(request)
        if request.method == "PUT":
            body, wanted = wire.parse_device_body(await request.body())
            if body.device_id not in {None, device_id}:
                raise wire.BodyInvalidError(detail="deviceId differs from the one in the path")
            return JSONResponse(view_of(await registry.put(hub, device_id, body, wanted, etag, actor=policy)))
        if request.method == "DELETE":
            await registry.remove(hub, device_id, etag, actor=policy)
            return Response(status_code=204)
        return JSONResponse(view_of(await registry.device(hub, device_id)))

    async def listing(request: Request) -> Response:
        hub = _hub(hubs, request)
        hubs.authorize(hub, request.headers.get("authorization"), READ, "devices")
        top = whole_number(request.query_params.get("top", str(_MAX_LIST)))
        if not top:
            raise wire.BodyInvalidError(detail="top must be 1 or more")
        return JSONResponse([view_of(d) for d in await registry.devices(hub, limit=min(top, _MAX_LIST))])

    async def statistics(request: Request) -> Response:
        hub = _hub(hubs, request)
        hubs.authorize(hub, request.headers.get("authorization"), READ, "statistics/devices")
        total, enabled = await registry.count(hub)
        counts = {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": total - enabled}
        return JSONResponse(counts)

    def guarded(handler: Handler) -> Handler:
        return refusing(handler, lambda error, request: _render(error, record(error, request)))

    async def unserved(request: Request) -> Response:
        path = request.url.path[:200]
        raise PathNotServedError(method=request.method, path=path)

    # After the served ones: another path or method of the hub is told from a device that does not exist.
    elsewhere = [
        *("/devices", "/devices/", "/devices/query", "/devices/{device_id}", "/devices/{device_id}/{rest:path}"),
        *(f"/{first}{rest}" for first in _UNSERVED for rest in ("", "/{rest:path}")),
        *("/twins/{device_id}", "/twins/{device_id}/{rest:path}", "/statistics", "/statistics/{rest:path}"),
    ]
    return [
        Route("/devices", guarded(listing), methods=["GET"]),
        Route("/devices/", guarded(listing), methods=["GET"]),  # as the Node SDK asks
        Route("/devices/query", guarded(unserved), methods=["POST"]),
        Route("/devices/{device_id}", guarded(one), methods=["GET", "PUT", "DELETE"]),
        Route("/statistics/devices", guarded(statistics), methods=["GET"]),
        *(Route(path, guarded(unserved), methods=_ANY) for path in elsewhere),
    ]


def _hub(hubs: Hubs, request: Request) -> Hub:
    return hubs.by_host(request.headers.get("host", ""))


def _etag(request: Request) -> str | None:
    value = request.headers.get("if-match")
    return None if value is None else value.strip().strip('"')


def _render(error: BirthmarkError, tracking_id: str) -> Response:
    status, name, number = http_error(error)
    detail = str(error) if isinstance(error, InvalidRequestError) else error.facts.get("device_id", str(error))
    body = {"Message": f"ErrorCode:{name};{detail}", "ExceptionMessage": f"Tracking ID:{tracking_id}"}
    headers = {"iothub-errorcode": name, "x-ms-error-code": str(number)}
    return Response(json.dumps(body), status, headers, "application/json")
