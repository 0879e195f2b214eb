"""IoT Hub's service REST: registry, twins, methods, messages to devices (IoT Hub REST reference, "Service")."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.broker.rules.inbox import Outcome
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.iothub import wire
from birthmark.iothub.errors import http_error
from birthmark.iothub.model import Device, Hub, Mail, space_of
from birthmark.iothub.ports import ToDevices
from birthmark.iothub.rules.c2d import FEEDBACK
from birthmark.iothub.rules.messages import PathNotServedError
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs import READ, WRITE, Hubs
from birthmark.net.refusing import Handler, refusing
from birthmark.store import from_micros
from birthmark.text import whole_number

_MAX_LIST = 1000
_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# First path segments of the hub's REST interface, of which nothing is served (REST reference, "Service").
_UNSERVED = ("jobs", "configurations", "messages", "digitaltwins", "modules", "serviceStats", "file", "query")
_SERVICE = frozenset({"iothubowner", "service"})
_DEVICEBOUND, _SERVICEBOUND = ("deviceBound", "devicebound"), ("serviceBound", "servicebound")
_APP = "iothub-app-"
_SYSTEM = {  # what names a message's system properties in headers, and in a property bag
    "iothub-correlationid": "$.cid",
    "iothub-userid": "$.uid",
    "iothub-contenttype": "$.ct",
    "iothub-contentencoding": "$.ce",
}
Record = Callable[[BirthmarkError, Request], str]


def routes(iothub: IotHub, devices: ToDevices, record: Record) -> list[Route]:
    """Return the registry's routes; `record` files a refusal and returns its tracking id."""
    hubs, registry = iothub.hubs, iothub.registry

    def seen(device: Device) -> dict[str, Any]:
        at = devices.connected_since(device.hub, device.device_id)
        activity = wire.NEVER if at is None else wire.registry_time(at)
        return {"is_connected": at is not None, "last_activity": activity}

    def view_of(device: Device) -> dict[str, Any]:
        return wire.device_json(device, **seen(device))

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

    def asked(request: Request, resource: str) -> tuple[Hub, str, str]:
        """Return hub, device and policy of a call of the service's."""
        hub, device_id = _hub(hubs, request), request.path_params.get("device_id", "")
        policy = hubs.authorize(hub, request.headers.get("authorization"), _SERVICE, resource.format(device_id))
        return hub, device_id, policy

    async def twin(request: Request) -> Response:
        hub, device_id, policy = asked(request, "twins/{}")
        device = await registry.device(hub, device_id)
        if request.method == "GET":
            known = await iothub.twins.get(hub, device_id)
        else:
            body = wire.parse_twin_body(await request.body())
            replaces = request.method == "PUT"
            before, known = await iothub.twins.desire(
                hub, device_id, body, _etag(request), replaces=replaces, actor=policy
            )
            patch = (body.get("properties") or {}).get("desired")
            devices.desired_changed(before, known, patch, replaces=replaces)
        count = await iothub.c2d.count(hub.name, device_id)
        return JSONResponse({**wire.twin_json(known, device, **seen(device)), "cloudToDeviceMessageCount": count})

    async def method(request: Request) -> Response:
        hub, device_id, _ = asked(request, "twins/{}/methods")
        status, payload = await devices.call(hub, device_id, wire.parse_method_call(await request.body()))
        return JSONResponse({"status": status, "payload": payload})

    async def send(request: Request) -> Response:
        hub, device_id, policy = asked(request, "devices/{}/messages/devicebound")
        headers = request.headers
        mail = Mail(
            await request.body(),
            {name: headers[header] for header, name in _SYSTEM.items() if header in headers},
            {name[len(_APP) :]: value for name, value in headers.items() if name.startswith(_APP)},
        )
        letter = await iothub.c2d.send(
            hub,
            device_id,
            mail,
            message_id=headers.get("iothub-messageid", ""),
            feedback=headers.get("iothub-ack", ""),
            expiry=headers.get("iothub-expiry"),
            actor=policy,
        )
        devices.mail_came(hub, device_id)
        return JSONResponse({"messageId": letter.id, "enqueuedTime": _time(letter.enqueued_at)}, 201)

    async def purge(request: Request) -> Response:
        hub, device_id, _ = asked(request, "devices/{}/commands")
        await registry.device(hub, device_id)
        count = await iothub.c2d.inboxes.purge(space_of(hub.name), device_id)
        return JSONResponse({"deviceId": device_id, "moduleId": None, "totalMessagesPurged": count})

    async def feedback(request: Request) -> Response:
        hub, _, _ = asked(request, "messages/servicebound/feedback")
        letter = await iothub.c2d.feedback.take(space_of(hub.name), FEEDBACK)
        if letter is None:
            return Response(status_code=204)
        return JSONResponse([iothub.c2d.record_of(letter)], headers={"ETag": f'"{letter.lock}"'})

    async def feedback_done(request: Request) -> Response:
        hub, _, _ = asked(request, "messages/servicebound/feedback")
        lock, inboxes = request.path_params["lock"], iothub.c2d.feedback
        if request.method == "DELETE":
            outcome = Outcome.REJECTED if "reject" in request.query_params else Outcome.COMPLETED
            await inboxes.settle(space_of(hub.name), FEEDBACK, lock, outcome)
        else:
            await inboxes.abandon(space_of(hub.name), FEEDBACK, lock)
        return Response(status_code=204)

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
        Route("/twins/{device_id}", guarded(twin), methods=["GET", "PATCH", "PUT"]),
        Route("/twins/{device_id}/methods", guarded(method), methods=["POST"]),
        *(Route(f"/devices/{{device_id}}/messages/{name}", guarded(send), methods=["POST"]) for name in _DEVICEBOUND),
        Route("/devices/{device_id}/commands", guarded(purge), methods=["DELETE"]),
        *(Route(f"/messages/{name}/feedback", guarded(feedback), methods=["GET"]) for name in _SERVICEBOUND),
        *(
            Route(f"/messages/{name}/feedback/{{lock}}{end}", guarded(feedback_done), methods=[verb])
            for name in _SERVICEBOUND
            for end, verb in (("", "DELETE"), ("/abandon", "POST"))
        ),
        *(Route(path, guarded(unserved), methods=_ANY) for path in elsewhere),
    ]


def _hub(hubs: Hubs, request: Request) -> Hub:
    return hubs.by_host(request.headers.get("host", ""))


def _time(micros: int) -> str:
    return wire.registry_time(from_micros(micros))


def _etag(request: Request) -> str | None:
    value = request.headers.get("if-match")
    return None if value is None else value.strip().strip('"')


def _render(error: BirthmarkError, tracking_id: str) -> Response:
    status, name, number = http_error(error)
    detail = str(error) if isinstance(error, InvalidRequestError) else error.facts.get("device_id", str(error))
    body = {"Message": f"ErrorCode:{name};{detail}", "ExceptionMessage": f"Tracking ID:{tracking_id}"}
    headers = {"iothub-errorcode": name, "x-ms-error-code": str(number)}
    return Response(json.dumps(body), status, headers, "application/json")
