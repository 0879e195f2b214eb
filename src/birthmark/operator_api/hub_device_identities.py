"""Operator API of a hub's devices: create, list, enable, disable and delete."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub, Identity, Module
from birthmark.iothub.ports import DevicePresence
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass, edition_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody, DeviceCapabilities, device_json, module_json
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows
from birthmark.pki.certificates import parse_thumbprint


class NewDeviceBody(msgspec.Struct):
    """A device to create: with a certificate's thumbprint, with certificates of the hub's CAs, or with new keys."""

    device_id: str
    thumbprint: str | None = None
    iot_edge: bool = False
    by_authority: bool = False


class NewModule(msgspec.Struct):
    """A module to create: with a certificate's thumbprint, or with new keys."""

    module_id: str
    thumbprint: str | None = None


class DeviceSwitch(msgspec.Struct):
    """Whether a device may connect."""

    enabled: bool


def show_endpoints(iothub: IotHub, presence: DevicePresence) -> Sequence[Endpoint]:
    """Return the routes that show one hub, one device or one module."""
    hubs, registry = iothub.hubs, iothub.registry

    async def show(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        total, enabled = await registry.count(hub)
        told = {"devices": total, "enabled": enabled, "connected": await presence.connected(hub.name)}
        cas = await iothub.authorities.all(hub)
        known = {"name": hub.name, "host": hub.host, "policies": list(hub.policies), "cas": len(cas), **told}
        groups = [group.name for group in await iothub.consumer_groups.all(hub)]
        events = {"event_hubs_endpoint": f"sb://{hub.host}/", "event_hubs_name": hub.name, "consumer_groups": groups}
        return known | events | tier_view(hub)

    async def identity(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        found = await registry.identity(hub, request["identity"])
        (seen,) = await presence.seen(hub.name, [found.name])
        is_connected = seen.is_connected
        if isinstance(found, Module):
            return module_json(found, is_connected=is_connected, with_keys=False)
        shown = device_json(found, is_connected=is_connected, with_keys=False)
        runtime = await iothub.previews.runtime_response(hub, found)
        return shown if runtime is None else shown | {"edgeRuntime": runtime._asdict()}

    return [
        Endpoint("GET", "/hubs/{name}", Right.READ, "Return a hub.", show),
        Endpoint(
            "GET", "/hubs/{name}/identities/{identity:path}", Right.READ, "Return a device or a module.", identity
        ),
    ]


def tier_view(hub: Hub) -> dict[str, Any]:
    """Return a hub's tier with its limits as text."""
    if hub.tier is None:
        return {"tier": None}
    edition = edition_of(hub.tier)
    limits = [edition.pace(what).format(what) for what in ThrottleClass]
    limits.append(f"{edition.most_messages:,} messages of {edition.meter:,} bytes a day")
    limits.append(f"{edition.most_devices:,} devices")
    return {"tier": str(edition), "most_devices": edition.most_devices, "limits": limits}


def endpoints(iothub: IotHub, presence: DevicePresence) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub device`."""
    hubs, registry = iothub.hubs, iothub.registry

    async def devices(request: ApiRequest) -> Rows:
        query: PageQuery = request.query
        hub = hubs.by_name(request["name"])
        found = await registry.devices(hub, after=query.after, limit=query.limit)
        times = await presence.seen(hub.name, [device.device_id for device in found])
        views = [
            device_json(device, is_connected=seen.is_connected, with_keys=False)
            for device, seen in zip(found, times, strict=True)
        ]
        return Rows(views, found[-1].device_id if len(found) == query.limit else None)

    async def delete_device(request: ApiRequest) -> None:
        await registry.remove(hubs.by_name(request["name"]), request["device"], None, actor=request.actor)

    async def switch_device(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        await _check_lost(iothub, request, request["device"] if request.body.enabled else "")
        found = await registry.set_enabled(hub, request["device"], is_enabled=request.body.enabled, actor=request.actor)
        return {"device": found.device_id, "hub": hub.host, "status": "enabled" if found.is_enabled else "disabled"}

    async def create_device(request: ApiRequest) -> Any:
        body: NewDeviceBody = request.body
        hub = hubs.by_name(request["name"])
        await _check_lost(iothub, request, body.device_id)
        wanted = DeviceBody(body.device_id, capabilities=DeviceCapabilities(body.iot_edge))
        proof = DeviceAuthentication(AuthenticationType.AUTHORITY)
        proof = proof if body.by_authority else _proof_of(body.thumbprint)
        made = await registry.put(hub, body.device_id, wanted, proof, None, actor=request.actor)
        return {"device": made.device_id, "hub": hub.host, **_made_view(made, body.thumbprint)}

    async def modules(request: ApiRequest) -> Rows:
        hub, device_id = hubs.by_name(request["name"]), request["device"]
        await registry.device(hub, device_id)
        found = await registry.modules.of(hub, device_id)
        times = await presence.seen(hub.name, [module.name for module in found])
        return Rows(
            [
                module_json(module, is_connected=seen.is_connected, with_keys=False)
                for module, seen in zip(found, times, strict=True)
            ]
        )

    async def create_module(request: ApiRequest) -> Any:
        body: NewModule = request.body
        hub = hubs.by_name(request["name"])
        device = await registry.device(hub, request["device"])
        made = await registry.modules.put(device, body.module_id, _proof_of(body.thumbprint), actor=request.actor)
        shown = {"device": made.device_id, "module": made.module_id, "hub": hub.host}
        return shown | _made_view(made, body.thumbprint)

    async def delete_module(request: ApiRequest) -> None:
        hub = hubs.by_name(request["name"])
        await registry.modules.remove(hub, request["device"], request["module"], None, actor=request.actor)

    every, one = "/hubs/{name}/devices", "/hubs/{name}/devices/{device:path}"
    inside = "/hubs/{name}/modules/{device}"
    return [
        Endpoint("GET", every, Right.READ, "List the devices of a hub.", devices, query=PageQuery),
        Endpoint("POST", every, Right.ENROLL, "Create a device.", create_device, NewDeviceBody, status=201),
        Endpoint("PATCH", one, Right.ENROLL, "Enable or disable a device.", switch_device, DeviceSwitch),
        Endpoint("DELETE", one, Right.ENROLL, "Delete a device.", delete_device, status=204),
        Endpoint("GET", inside, Right.READ, "List the modules of a device.", modules),
        Endpoint("POST", inside, Right.ENROLL, "Create a module.", create_module, NewModule, status=201),
        Endpoint("DELETE", f"{inside}/{{module}}", Right.ENROLL, "Delete a module.", delete_module, status=204),
    ]


async def _check_lost(iothub: IotHub, request: ApiRequest, device_id: str) -> None:
    """Raise `RightMissingError` if the device was revoked and the caller has no right to revoke."""
    if await iothub.is_lost(device_id):
        request.require_permission(Right.REVOKE, f"hub/{request['name']}")


def _proof_of(thumbprint: str | None) -> DeviceAuthentication:
    kind = AuthenticationType.SAS if thumbprint is None else AuthenticationType.SELF_SIGNED
    return DeviceAuthentication(kind, None if thumbprint is None else parse_thumbprint(thumbprint))


def _made_view(identity: Identity, thumbprint: str | None) -> dict[str, Any]:
    """Return the view of a new identity, with the secrets that are shown only once."""
    key = identity.authentication.primary_key
    return {
        "auth": identity.authentication.type.value,
        "thumbprint": thumbprint,
        "primary_key": None if key is None else base64.b64encode(key).decode(),
    }
