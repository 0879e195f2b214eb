"""IoT Hub's service REST: registry, twins, methods, messages to devices (IoT Hub REST reference, "Service")."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.broker.device_queue import DeviceQueues
from birthmark.broker.rules.device_queue import QueueOutcome
from birthmark.iothub import wire
from birthmark.iothub.http import configurations, digital_twins, modules, registry_jobs, scheduled_jobs
from birthmark.iothub.http.authorization_and_errors import (
    DEVICEBOUND,
    SERVICEBOUND,
    Record,
    etag_of,
    guarded,
    hub_of,
    problem_view,
    seen_view,
    time_of,
)
from birthmark.iothub.http.message_headers import c2d_message_of
from birthmark.iothub.model import Device, Hub, Identity, Twin, name_of, space_of
from birthmark.iothub.ports import DeviceCalls
from birthmark.iothub.rules.c2d import FEEDBACK, MAX_BYTES
from birthmark.iothub.rules.configurations import EDGE_AGENT, modules_of_content
from birthmark.iothub.rules.direct_methods import MAX_PAYLOAD_BYTES
from birthmark.iothub.rules.publish_refusals import PathNotServedError
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass
from birthmark.iothub.rules.twins import apply_configuration
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.file_uploads import NOTIFICATIONS
from birthmark.iothub.service.hubs_and_authorization import READ, SERVICE, WRITE
from birthmark.iothub.service.throttles import Throttles
from birthmark.iothub.wire.configurations import DESIRED_PATH
from birthmark.net.http_route_wrappers import Handler
from birthmark.untrusted_json_and_text import whole_number

_BLOCK, _KIB = 4096, 1024
_OF_ONE, _OF_ITS_PART, _OF_A_MODULES_PART = 2, 3, 5
_LARGEST = {ThrottleClass.METHOD: MAX_PAYLOAD_BYTES, ThrottleClass.MAIL: MAX_BYTES}


def kind_of(method: str, path: str) -> ThrottleClass | None:
    """Return the throttle class of a request, or None if it is not throttled.

    The number of path segments selects the resource: a device id may equal any segment name.
    """
    parts = path.strip("/").split("/")
    first, count = parts[0], len(parts)
    of_twin = ThrottleClass.TWIN_READ if method == "GET" else ThrottleClass.TWIN_UPDATE
    if first == "twins":
        return ThrottleClass.METHOD if count in {_OF_ITS_PART, _OF_A_MODULES_PART} else of_twin
    if first == "digitaltwins":
        return of_twin if count == _OF_ONE else ThrottleClass.METHOD
    if first == "jobs":
        return ThrottleClass.JOB
    if first == "devices":
        if count < _OF_ITS_PART:
            return ThrottleClass.REGISTRY
        return _OF_DEVICE.get(parts[2])
    return {"statistics": ThrottleClass.REGISTRY, "configurations": ThrottleClass.CONFIGURATION}.get(first)


_OF_DEVICE = {
    "applyConfigurationContent": ThrottleClass.TWIN_UPDATE,
    "messages": ThrottleClass.MAIL,
    "modules": ThrottleClass.REGISTRY,
}


def size_of(headers: Mapping[str, str], throttle_class: ThrottleClass) -> int:
    """Return the body size of a request; without a Content-Length, the maximum for its class."""
    if "transfer-encoding" in headers:
        return _LARGEST.get(throttle_class, 0)
    return whole_number(headers.get("content-length", "")) or 0


def meter(throttles: Throttles, hub: Hub, request: Request) -> None:
    """Count a request against the throttles. Raise `TierThrottledError`, `TierQuotaError`."""
    if throttles.of(hub.name) is None or (what := kind_of(request.method, request.scope["path"])) is None:
        return
    size = size_of(request.headers, what)
    throttles.take(hub, what, -(-max(size, 1) // _BLOCK) * (_BLOCK / _KIB) if what is ThrottleClass.METHOD else 1)
    if what in {ThrottleClass.METHOD, ThrottleClass.MAIL}:
        throttles.count(hub, size)


_MAX_LIST, _MAX_SHOWN = 1000, 200
_TWIN = "twins/{}"


def routes(iothub: IotHub, devices: DeviceCalls, record: Record) -> list[Route]:
    """Return the registry routes; `record` logs a refusal and returns its tracking id."""
    hubs, registry = iothub.hubs, iothub.registry

    async def seen(identity: Identity) -> dict[str, Any]:
        (found,) = await devices.seen(identity.hub, [identity.name])
        return seen_view(found)

    async def view_of(device: Device) -> dict[str, Any]:
        return wire.device_json(device, **await seen(device))

    def authorized(request: Request, hub: Hub, allowed: frozenset[str], resource: str, right: Right) -> str:
        """Authorize a request and return the caller: an `allowed` policy of the hub, or a user with `right`."""
        address = request.client.host if request.client else ""
        given = request.headers.get("authorization")
        who = hubs.authorize(hub, given, allowed, resource, right=right, address=address)
        meter(iothub.throttles, hub, request)
        return who

    async def one(request: Request) -> Response:
        device_id = request.path_params["device_id"]
        hub = hub_of(hubs, request)
        allowed = READ if request.method == "GET" else WRITE
        # The response includes keys, so users need more than read access.
        policy = authorized(request, hub, allowed, f"devices/{device_id}", Right.ENROLL)
        etag = etag_of(request)
        if request.method == "PUT":
            body, wanted = wire.parse_device_body(await request.body())
            if body.device_id not in {None, device_id}:
                raise wire.BodyInvalidError(detail="deviceId differs from the one in the path")
            if await iothub.is_lost(device_id):
                authorized(request, hub, allowed, f"devices/{device_id}", Right.REVOKE)
            return JSONResponse(await view_of(await registry.put(hub, device_id, body, wanted, etag, actor=policy)))
        if request.method == "DELETE":
            await registry.remove(hub, device_id, etag, actor=policy)
            return Response(status_code=204)
        device = await registry.device(hub, device_id)
        await registry.audit_key_display(hub, [device], actor=policy)
        return JSONResponse(await view_of(device))

    async def listing(request: Request) -> Response:
        hub = hub_of(hubs, request)
        policy = authorized(request, hub, READ, "devices", Right.ENROLL)
        top = whole_number(request.query_params.get("top", str(_MAX_LIST)))
        if not top:
            raise wire.BodyInvalidError(detail="top must be 1 or more")
        found = await registry.devices(hub, limit=min(top, _MAX_LIST))
        times = await devices.seen(hub.name, [device.device_id for device in found])
        await registry.audit_key_display(hub, found, actor=policy)
        return JSONResponse([wire.device_json(d, **seen_view(at)) for d, at in zip(found, times, strict=True)])

    async def statistics(request: Request) -> Response:
        hub = hub_of(hubs, request)
        authorized(request, hub, READ, "statistics/devices", Right.READ)
        total, enabled = await registry.count(hub)
        counts = {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": total - enabled}
        return JSONResponse(counts)

    async def bulk(request: Request) -> Response:
        hub = hub_of(hubs, request)
        policy = authorized(request, hub, WRITE, "devices", Right.ENROLL)
        items = wire.parse_bulk(await request.body())
        if any(item.twin and (item.import_mode != "create" or item.module_id) for item in items):
            authorized(request, hub, WRITE, "devices", Right.OPERATE)  # it changes existing devices
        for item in items:
            if not item.import_mode.startswith(("delete", "updateTwin")) and await iothub.is_lost(item.id):
                authorized(request, hub, WRITE, "devices", Right.REVOKE)
                break
        problems = await iothub.bulk.do(hub, items, actor=policy)
        errors = [
            problem_view(problem, item.id, item.module_id)
            for item, problem in zip(items, problems, strict=True)
            if problem is not None
        ]
        for problem in problems:
            if problem is not None:
                record(problem, request)
        shown = {"isSuccessful": not errors, "errors": errors, "warnings": []}
        return JSONResponse(shown, 400 if errors else 200)

    async def connected(request: Request) -> Response:
        hub = hub_of(hubs, request)
        authorized(request, hub, READ | SERVICE, "statistics/service", Right.READ)
        return JSONResponse({"connectedDeviceCount": await devices.connected(hub.name)})

    async def configure(request: Request) -> Response:
        hub, device_id = hub_of(hubs, request), request.path_params["device_id"]
        policy = authorized(request, hub, WRITE, f"devices/{device_id}/applyConfigurationContent", Right.OPERATE)
        content = wire.parse_content(await request.body())
        device = await registry.device(hub, device_id)
        if content.modules_content and not device.is_iot_edge:
            raise wire.BodyInvalidError(detail=f"modulesContent, and {device_id} is not an IoT Edge device")
        wanted = {name_of(device_id, name): one for name, one in (content.modules_content or {}).items()}
        wanted |= {device_id: content.device_content} if content.device_content else {}
        for name, one in wanted.items():  # before anything changes
            apply_configuration(Twin(hub.name, name), one, 0)
        if content.modules_content:
            modules_wanted = modules_of_content(content.modules_content)
            is_complete = DESIRED_PATH in content.modules_content.get(EDGE_AGENT, {})
            await iothub.evaluation.set_modules(hub, device, modules_wanted, is_complete=is_complete, actor=policy)
        for name, one in wanted.items():
            await iothub.twins.configure(hub, name, one, actor=policy)
        return Response(status_code=204)

    def asked(request: Request, resource: str) -> tuple[Hub, str, str]:
        """Return the hub, the name of the device or module, and the policy of a service call."""
        hub, device_id = hub_of(hubs, request), request.path_params.get("device_id", "")
        module_id = request.path_params.get("module_id")
        right = Right.READ if request.method == "GET" and resource == _TWIN else Right.OPERATE
        at = device_id if module_id is None else f"{device_id}/modules/{module_id}"
        return hub, name_of(device_id, module_id), authorized(request, hub, SERVICE, resource.format(at), right)

    async def twin(request: Request) -> Response:
        if request.method == "POST" and request.headers.get("x-http-method-override", "").upper() != "PATCH":
            raise PathNotServedError(method=request.method, path=request.url.path[:_MAX_SHOWN])
        hub, name, policy = asked(request, _TWIN)
        identity = await registry.identity(hub, name)
        if request.method == "GET":
            known = await iothub.twins.get(hub, name)
        else:
            body = wire.parse_twin_body(await request.body())
            replaces = request.method == "PUT"
            present = await iothub.twins.get(hub, name)
            wire.check_twin_members(body, wire.twin_json(present, identity, **await seen(identity)))
            known = await iothub.twins.desire(hub, name, body, etag_of(request), replaces=replaces, actor=policy)
        shown = wire.twin_json(known, identity, **await seen(identity))
        return JSONResponse(shown | {"cloudToDeviceMessageCount": await iothub.c2d.count(hub.name, name)})

    async def method(request: Request) -> Response:
        hub, device_id, _ = asked(request, "twins/{}/methods")
        status, payload = await devices.call(hub, device_id, wire.parse_method_call(await request.body()))
        return JSONResponse({"status": status, "payload": payload})

    async def send(request: Request) -> Response:
        hub, device_id, policy = asked(request, "devices/{}/messages/devicebound")
        headers = request.headers
        mail = c2d_message_of(headers, await request.body())
        letter = await iothub.c2d.send(
            hub,
            device_id,
            mail,
            message_id=headers.get("iothub-messageid", ""),
            feedback=headers.get("iothub-ack", ""),
            expiry=headers.get("iothub-expiry"),
            actor=policy,
        )
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

    async def file_notification(request: Request) -> Response:
        hub, _, _ = asked(request, "messages/servicebound/filenotifications")
        letter = await iothub.files.notifications.take(space_of(hub.name), NOTIFICATIONS)
        if letter is None:
            return Response(status_code=204)
        return JSONResponse(iothub.files.record_of(letter), headers={"ETag": f'"{letter.lock}"'})

    def settling(node: str, queues: DeviceQueues, queue: str) -> Handler:
        """Return the handler that completes, rejects or abandons a message to the service."""

        async def settle(request: Request) -> Response:
            hub, _, _ = asked(request, f"messages/servicebound/{node}")
            lock = request.path_params["lock"]
            if request.method == "DELETE":
                outcome = QueueOutcome.REJECTED if "reject" in request.query_params else QueueOutcome.COMPLETED
                await queues.settle(space_of(hub.name), queue, lock, outcome)
            else:
                await queues.abandon(space_of(hub.name), queue, lock)
            return Response(status_code=204)

        return settle

    def at(path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, guarded(handler, record), methods=list(methods))

    twin_methods = ("GET", "PATCH", "PUT", "POST")  # POST stands for PATCH, which Java's HTTP client lacks
    found = [
        at("/devices", listing, "GET"),
        at("/devices/", listing, "GET"),  # the Node SDK's form
        at("/devices", bulk, "POST"),
        at("/devices/{device_id}", one, "GET", "PUT", "DELETE"),
        at("/devices/{device_id}/applyConfigurationContent", configure, "POST"),
        at("/statistics/devices", statistics, "GET"),
        at("/statistics/service", connected, "GET"),
        at("/twins/{device_id}", twin, *twin_methods),
        at("/twins/{device_id}/modules/{module_id}", twin, *twin_methods),
        at("/twins/{device_id}/methods", method, "POST"),
        at("/twins/{device_id}/modules/{module_id}/methods", method, "POST"),
        *modules.routes(iothub, devices, authorized, record),
        *configurations.routes(iothub, authorized, record),
        *digital_twins.routes(iothub, devices, authorized, record),
        *scheduled_jobs.routes(iothub, authorized, record),
        *registry_jobs.routes(iothub, authorized, record),
        at("/devices/{device_id}/commands", purge, "DELETE"),
        *(at(f"/devices/{{device_id}}/messages/{name}", send, "POST") for name in DEVICEBOUND),
    ]
    to_service = (
        ("feedback", feedback, settling("feedback", iothub.c2d.feedback, FEEDBACK)),
        (
            "filenotifications",
            file_notification,
            settling("filenotifications", iothub.files.notifications, NOTIFICATIONS),
        ),
    )
    for name in SERVICEBOUND:
        for node, take, settle in to_service:
            found += [
                at(f"/messages/{name}/{node}", take, "GET"),
                at(f"/messages/{name}/{node}/{{lock}}", settle, "DELETE"),
                at(f"/messages/{name}/{node}/{{lock}}/abandon", settle, "POST"),
            ]
    return found
