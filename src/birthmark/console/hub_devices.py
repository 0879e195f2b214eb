"""The operator interface of a hub's devices: make, list, switch off and on, remove."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.auth.rights import Right
from birthmark.console.routing import Asked, Endpoint, PageQuery, Rows
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication
from birthmark.iothub.ports import Presence
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody, device_json
from birthmark.pki.certificates import parse_thumbprint


class NewDevice(msgspec.Struct):
    """A device with a certificate's thumbprint, or with fresh keys."""

    device_id: str
    thumbprint: str | None = None


class DeviceSwitch(msgspec.Struct):
    """Whether a device may connect."""

    enabled: bool


def endpoints(iothub: IotHub, presence: Presence) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub device`."""
    hubs, registry = iothub.hubs, iothub.registry

    async def devices(asked: Asked) -> Rows:
        query: PageQuery = asked.query
        hub = hubs.by_name(asked["name"])
        found = await registry.devices(hub, after=query.after, limit=query.limit)
        times = await presence.seen(hub.name, [device.device_id for device in found])
        views = [
            device_json(device, is_connected=seen.is_connected, with_keys=False)
            for device, seen in zip(found, times, strict=True)
        ]
        return Rows(views, found[-1].device_id if len(found) == query.limit else None)

    async def delete_device(asked: Asked) -> None:
        await registry.remove(hubs.by_name(asked["name"]), asked["device"], None, actor=asked.actor)

    async def switch_device(asked: Asked) -> Any:
        hub = hubs.by_name(asked["name"])
        found = await registry.switch(hub, asked["device"], is_enabled=asked.body.enabled, actor=asked.actor)
        return {"device": found.device_id, "hub": hub.host, "status": "enabled" if found.is_enabled else "disabled"}

    async def create_device(asked: Asked) -> Any:
        body: NewDevice = asked.body
        hub = hubs.by_name(asked["name"])
        kind = AuthenticationType.SAS if body.thumbprint is None else AuthenticationType.SELF_SIGNED
        thumbprint = None if body.thumbprint is None else parse_thumbprint(body.thumbprint)
        wanted = DeviceAuthentication(kind, thumbprint)
        made = await registry.put(hub, body.device_id, DeviceBody(body.device_id), wanted, None, actor=asked.actor)
        key = made.authentication.primary_key
        return {
            "device": made.device_id,
            "hub": hub.host,
            "auth": kind.value,
            "thumbprint": body.thumbprint,
            "primary_key": None if key is None else base64.b64encode(key).decode(),
        }

    every, one = "/hubs/{name}/devices", "/hubs/{name}/devices/{device:path}"
    return [
        Endpoint("GET", every, Right.READ, "A page of a hub's devices.", devices, query=PageQuery),
        Endpoint("POST", every, Right.ENROLL, "Make a device.", create_device, NewDevice, status=201),
        Endpoint("PATCH", one, Right.ENROLL, "Enable or disable a device.", switch_device, DeviceSwitch),
        Endpoint("DELETE", one, Right.ENROLL, "Remove a device.", delete_device, status=204),
    ]
