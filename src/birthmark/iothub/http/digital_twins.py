"""Digital twins over HTTPS (IoT Hub REST reference, "Digital Twin"): read, patch, and invoke commands."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.iothub import wire
from birthmark.iothub.http.authorization_and_errors import Authorized, Record, etag_of, guarded, hub_of
from birthmark.iothub.model import Hub, parse_device_id
from birthmark.iothub.ports import DeviceCalls
from birthmark.iothub.rules.digital_twins import digital_twin
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import SERVICE
from birthmark.net.http_route_wrappers import Handler
from birthmark.untrusted_json_and_text import read_json, whole_number

_PATHS = ("/commands/{command}", "/components/{component}/commands/{command}")
_WAITS = ("connectTimeoutInSeconds", "responseTimeoutInSeconds")


def routes(iothub: IotHub, devices: DeviceCalls, authorized: Authorized, record: Record) -> list[Route]:
    """Return the routes of digital twins; `record` logs a refusal and returns its tracking id."""

    def asked(request: Request, right: Right) -> tuple[Hub, str, str]:
        """Return hub, device and authenticated caller of a request."""
        device_id, hub = parse_device_id(request.path_params["device_id"]), hub_of(iothub.hubs, request)
        return hub, device_id, authorized(request, hub, SERVICE, f"digitaltwins/{device_id}", right)

    async def one(request: Request) -> Response:
        is_read = request.method == "GET"
        hub, device_id, actor = asked(request, Right.READ if is_read else Right.OPERATE)
        await iothub.registry.device(hub, device_id)
        if is_read:
            twin = await iothub.twins.get(hub, device_id)
            return JSONResponse(digital_twin(twin), headers={"ETag": f'"{twin.etag}"'})
        patch = read_json(await request.body(), object, wire.BodyInvalidError)
        after = await iothub.twins.patch_digital(hub, device_id, patch, etag_of(request), actor=actor)
        headers = {"ETag": f'"{after.etag}"', "Location": f"https://{hub.host}/digitaltwins/{device_id}"}
        return Response(status_code=202, headers=headers)

    async def command(request: Request) -> Response:
        hub, device_id, _ = asked(request, Right.OPERATE)
        await iothub.registry.device(hub, device_id)
        component, name = request.path_params.get("component"), request.path_params["command"]
        call = _call_of(request, name if component is None else f"{component}*{name}", await request.body())
        status, payload = await devices.call(hub, device_id, call)
        return JSONResponse(payload, headers={"x-ms-command-statuscode": str(status)})

    def at(path: str, handler: Handler, *methods: str) -> Route:
        return Route(f"/digitaltwins/{{device_id}}{path}", guarded(handler, record), methods=list(methods))

    return [at("", one, "GET", "PATCH"), *(at(path, command, "POST") for path in _PATHS)]


def _call_of(request: Request, method: str, body: bytes) -> wire.MethodCall:
    """Return the direct method call for a digital twin command. Raise `BodyInvalidError`."""
    call = wire.MethodCall(method, read_json(body, Any, wire.BodyInvalidError) if body.strip() else None)
    given: dict[str, int] = {}
    for name in _WAITS:
        if (text := request.query_params.get(name)) is not None:
            seconds = whole_number(text)
            if seconds is None:
                raise wire.BodyInvalidError(detail=f"{name} is not an integer")
            given[name] = seconds
    wanted = {"connect_timeout_in_seconds": given.get(_WAITS[0]), "response_timeout_in_seconds": given.get(_WAITS[1])}
    return msgspec.structs.replace(call, **{name: value for name, value in wanted.items() if value is not None})
