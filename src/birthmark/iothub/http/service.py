"""IoT Hub's service REST: registry, twins, methods, messages to devices (IoT Hub REST reference, "Service")."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.rights import Right
from birthmark.broker.rules.inbox import Outcome
from birthmark.iothub import wire
from birthmark.iothub.http.headers import mail_of
from birthmark.iothub.http.rendering import DEVICEBOUND, SERVICEBOUND, Record, etag_of, guarded, hub_of, time_of
from birthmark.iothub.model import Device, Hub, space_of
from birthmark.iothub.ports import SeenAt, ToDevices
from birthmark.iothub.rules.c2d import FEEDBACK
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs import READ, SERVICE, WRITE
from birthmark.net.refusing import Handler
from birthmark.text import whole_number

_MAX_LIST = 1000
_TWIN = "twins/{}"


def _seen(found: SeenAt) -> dict[str, Any]:
    activity = wire.NEVER if found.at is None else wire.registry_time(found.at)
    return {"is_connected": found.is_connected, "last_activity": activity}


def routes(iothub: IotHub, devices: ToDevices, record: Record) -> list[Route]:
    """Return the registry's routes; `record` files a refusal and returns its tracking id."""
    hubs, registry = iothub.hubs, iothub.registry

    async def seen(device: Device) -> dict[str, Any]:
        (found,) = await devices.seen(device.hub, [device.device_id])
        return _seen(found)

    async def view_of(device: Device) -> dict[str, Any]:
        return wire.device_json(device, **await seen(device))

    def authorized(request: Request, hub: Hub, allowed: frozenset[str], resource: str, right: Right) -> str:
        """Return who asks: a policy of the hub that is `allowed`, or a person who has `right`."""
        address = request.client.host if request.client else ""
        given = request.headers.get("authorization")
        return hubs.authorize(hub, given, allowed, resource, right=right, address=address)

    async def one(request: Request) -> Response:
        device_id = request.path_params["device_id"]
        hub = hub_of(hubs, request)
        allowed = READ if request.method == "GET" else WRITE
        # Its keys are shown to who may look here: for people that is more than looking.
        policy = authorized(request, hub, allowed, f"devices/{device_id}", Right.ENROLL)
        etag = etag_of(request)
        if request.method == "PUT":
            body, wanted = wire.parse_device_body(await request.body())
            if body.device_id not in {None, device_id}:
                raise wire.BodyInvalidError(detail="deviceId differs from the one in the path")
            return JSONResponse(await view_of(await registry.put(hub, device_id, body, wanted, etag, actor=policy)))
        if request.method == "DELETE":
            await registry.remove(hub, device_id, etag, actor=policy)
            return Response(status_code=204)
        device = await registry.device(hub, device_id)
        await registry.note_shown(hub, [device], actor=policy)
        return JSONResponse(await view_of(device))

    async def listing(request: Request) -> Response:
        hub = hub_of(hubs, request)
        policy = authorized(request, hub, READ, "devices", Right.ENROLL)
        top = whole_number(request.query_params.get("top", str(_MAX_LIST)))
        if not top:
            raise wire.BodyInvalidError(detail="top must be 1 or more")
        found = await registry.devices(hub, limit=min(top, _MAX_LIST))
        times = await devices.seen(hub.name, [device.device_id for device in found])
        await registry.note_shown(hub, found, actor=policy)
        return JSONResponse([wire.device_json(d, **_seen(at)) for d, at in zip(found, times, strict=True)])

    async def statistics(request: Request) -> Response:
        hub = hub_of(hubs, request)
        authorized(request, hub, READ, "statistics/devices", Right.READ)
        total, enabled = await registry.count(hub)
        counts = {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": total - enabled}
        return JSONResponse(counts)

    def asked(request: Request, resource: str) -> tuple[Hub, str, str]:
        """Return hub, device and policy of a call of the service's."""
        hub, device_id = hub_of(hubs, request), request.path_params.get("device_id", "")
        right = Right.READ if request.method == "GET" and resource == _TWIN else Right.OPERATE
        return hub, device_id, authorized(request, hub, SERVICE, resource.format(device_id), right)

    async def twin(request: Request) -> Response:
        hub, device_id, policy = asked(request, _TWIN)
        device = await registry.device(hub, device_id)
        if request.method == "GET":
            known = await iothub.twins.get(hub, device_id)
        else:
            body = wire.parse_twin_body(await request.body())
            replaces = request.method == "PUT"
            present = await iothub.twins.get(hub, device_id)
            wire.check_twin_members(body, wire.twin_json(present, device, **await seen(device)))
            before, known = await iothub.twins.desire(
                hub, device_id, body, etag_of(request), replaces=replaces, actor=policy
            )
            patch = (body.get("properties") or {}).get("desired")
            devices.desired_changed(before, known, patch, replaces=replaces)
        count = await iothub.c2d.count(hub.name, device_id)
        return JSONResponse({**wire.twin_json(known, device, **await seen(device)), "cloudToDeviceMessageCount": count})

    async def method(request: Request) -> Response:
        hub, device_id, _ = asked(request, "twins/{}/methods")
        status, payload = await devices.call(hub, device_id, wire.parse_method_call(await request.body()))
        return JSONResponse({"status": status, "payload": payload})

    async def send(request: Request) -> Response:
        hub, device_id, policy = asked(request, "devices/{}/messages/devicebound")
        headers = request.headers
        mail = mail_of(headers, await request.body())
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
        return JSONResponse({"messageId": letter.id, "enqueuedTime": time_of(letter.enqueued_at)}, 201)

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

    def at(path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, guarded(handler, record), methods=list(methods))

    found = [
        at("/devices", listing, "GET"),
        at("/devices/", listing, "GET"),  # as the Node SDK asks
        at("/devices/{device_id}", one, "GET", "PUT", "DELETE"),
        at("/statistics/devices", statistics, "GET"),
        at("/twins/{device_id}", twin, "GET", "PATCH", "PUT"),
        at("/twins/{device_id}/methods", method, "POST"),
        at("/devices/{device_id}/commands", purge, "DELETE"),
        *(at(f"/devices/{{device_id}}/messages/{name}", send, "POST") for name in DEVICEBOUND),
    ]
    for name in SERVICEBOUND:
        found += [
            at(f"/messages/{name}/feedback", feedback, "GET"),
            at(f"/messages/{name}/feedback/{{lock}}", feedback_done, "DELETE"),
            at(f"/messages/{name}/feedback/{{lock}}/abandon", feedback_done, "POST"),
        ]
    return found
