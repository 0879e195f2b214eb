"""Module identities over HTTPS (IoT Hub REST reference, "Modules").

A device also manages its own modules, authenticated with its token or certificate and without a policy name. It can
neither read nor change modules of another device.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.auth.sas import parse_sas
from birthmark.errors import BirthmarkError, ThrottledError, UnavailableError
from birthmark.iothub import wire
from birthmark.iothub.http.authorization_and_errors import (
    UNAUTHORIZED,
    Authorized,
    Record,
    answer_of,
    etag_of,
    guarded,
    hub_of,
    seen_view,
)
from birthmark.iothub.model import Device, Hub, Module, parse_device_id
from birthmark.iothub.ports import DevicePresence
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import READ, WRITE
from birthmark.net.http_route_wrappers import Handler


class _UnprovenError(Exception):
    """A device failed to authenticate for this reason; other clients cannot learn whether the device exists."""

    def __init__(self, error: BirthmarkError) -> None:
        self.error = error


def routes(iothub: IotHub, presence: DevicePresence, authorized: Authorized, record: Record) -> list[Route]:
    """Return the module routes; `record` logs a refusal and returns its tracking id."""
    registry, modules = iothub.registry, iothub.registry.modules

    async def asked(request: Request) -> tuple[Hub, Device, str]:
        """Return hub, device and authenticated caller of a request: a policy, a user or the device itself."""
        device_id = parse_device_id(request.path_params["device_id"])
        hub = hub_of(iothub.hubs, request)
        given, peer = request.headers.get("authorization"), request.scope["extensions"]["tls"]
        if peer.leaf is None if given is None else parse_sas(given).policy is not None:
            allowed = READ if request.method == "GET" else WRITE
            actor = authorized(request, hub, allowed, f"devices/{device_id}/modules", Right.ENROLL)
            return hub, await registry.device(hub, device_id), actor
        user = wire.HubUser(request.headers.get("host", ""), device_id, None, "")
        try:
            _, device, _ = await registry.authenticate(user, peer, (given or "").encode(), path=request.scope["path"])
        except (UnavailableError, ThrottledError):
            raise
        except BirthmarkError as error:
            raise _UnprovenError(error) from error
        assert isinstance(device, Device)  # noqa: S101 - the user has no module
        if request.method != "GET":
            modules.count_change(device)
        return hub, device, f"device:{device_id}"

    async def view_of(module: Module) -> dict[str, object]:
        (found,) = await presence.seen(module.hub, [module.name])
        return wire.module_json(module, **seen_view(found))

    async def listing(request: Request) -> Response:
        hub, device, actor = await asked(request)
        found = await modules.of(hub, device.device_id)
        await registry.audit_key_display(hub, found, actor=actor)
        return JSONResponse([await view_of(one) for one in found])

    async def one(request: Request) -> Response:
        hub, device, actor = await asked(request)
        module_id, etag = request.path_params["module_id"], etag_of(request)
        if request.method == "DELETE":
            await modules.remove(hub, device.device_id, module_id, etag, actor=actor)
            return Response(status_code=204)
        if request.method == "PUT":
            body, wanted = wire.parse_module_body(await request.body())
            for said, meant in ((body.device_id, device.device_id), (body.module_id, module_id)):
                if said not in {None, meant}:
                    raise wire.BodyInvalidError(detail=f"{said[:128]!r} differs from the ID in the path")
            made = await modules.put(device, module_id, wanted, managed_by=body.managed_by, etag=etag, actor=actor)
            return JSONResponse(await view_of(made))
        found = await modules.module(hub, device.device_id, module_id)
        await registry.audit_key_display(hub, [found], actor=actor)
        return JSONResponse(await view_of(found))

    def at(path: str, handler: Handler, *methods: str) -> Route:
        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except _UnprovenError as unproven:
                return answer_of(UNAUTHORIZED, "Unauthorized", record(unproven.error, request))

        return Route(path, guarded(answered, record), methods=list(methods))

    every = "/devices/{device_id}/modules"
    return [at(every, listing, "GET"), at(f"{every}/{{module_id}}", one, "GET", "PUT", "DELETE")]
