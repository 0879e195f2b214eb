"""The operator interface to a hub's devices: their twins, methods, messages."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.broker.rules.device_queue import QueuedMessage
from birthmark.iothub.model import C2dMessage, Hub, Twin, space_of
from birthmark.iothub.ports import DeviceCalls
from birthmark.iothub.rules.c2d import FEEDBACK, LIFE_S, MAX_LIFE_S
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import MethodCall, twin_json
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.store import from_micros


class TwinPatch(msgspec.Struct):
    """Patch of a device twin: null removes, objects are merged. `etag` is that of the expected twin."""

    tags: dict[str, Any] | None = None
    desired: dict[str, Any] | None = None
    etag: str | None = None


class MethodCallBody(msgspec.Struct):
    """A direct method with its payload, any JSON."""

    method: str
    payload: Any = None
    response_timeout_s: int = 30
    connect_timeout_s: int = 0


class NewMail(msgspec.Struct):
    """A cloud-to-device message; `feedback` is none, positive, negative or full."""

    text: str
    feedback: str = "none"
    message_id: str = ""
    content_type: str | None = None
    properties: dict[str, str] = {}
    expires_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIFE_S)] = LIFE_S


def endpoints(iothub: IotHub, to_devices: DeviceCalls) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub twin`, `method`, `c2d` and `feedback`."""
    hubs, registry = iothub.hubs, iothub.registry

    async def twin(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        return await twin_view(hub, request["device"], await iothub.twins.get(hub, request["device"]))

    async def change_twin(request: ApiRequest) -> Any:
        body: TwinPatch = request.body
        hub, device_id = hubs.by_name(request["name"]), request["device"]
        patch: dict[str, Any] = {} if body.desired is None else {"properties": {"desired": body.desired}}
        if body.tags is not None:
            patch["tags"] = body.tags
        after = await iothub.twins.desire(hub, device_id, patch, body.etag, replaces=False, actor=request.actor)
        return await twin_view(hub, device_id, after)

    async def twin_view(hub: Hub, device_id: str, twin: Twin) -> Any:
        (seen,) = await to_devices.seen(hub.name, [device_id])
        return twin_json(twin, await registry.identity(hub, device_id), is_connected=seen.is_connected)

    async def call(request: ApiRequest) -> Any:
        body: MethodCallBody = request.body
        hub = hubs.by_name(request["name"])
        wanted = MethodCall(body.method, body.payload, body.response_timeout_s, body.connect_timeout_s)
        status, payload = await to_devices.call(hub, request["device"], wanted)
        return {"status": status, "payload": payload}

    async def send(request: ApiRequest) -> Any:
        body: NewMail = request.body
        hub, device_id = hubs.by_name(request["name"]), request["device"]
        system = {} if body.content_type is None else {"$.ct": body.content_type}
        letter = await iothub.c2d.send(
            hub,
            device_id,
            C2dMessage(body.text.encode(), system, body.properties),
            message_id=body.message_id,
            feedback=body.feedback,
            expiry=from_micros(iothub.c2d.now() + body.expires_s * 1_000_000).isoformat(),
            actor=request.actor,
        )
        return {"device": device_id, "message": letter.id, "expires": from_micros(letter.expires_at).isoformat()}

    async def waiting(request: ApiRequest) -> Rows:
        hub = hubs.by_name(request["name"])
        await registry.device(hub, request["device"])
        return Rows(
            [_letter_view(one) for one in await iothub.c2d.inboxes.letters(space_of(hub.name), request["device"])]
        )

    async def purge(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        await registry.device(hub, request["device"])
        return {
            "device": request["device"],
            "purged": await iothub.c2d.inboxes.purge(space_of(hub.name), request["device"]),
        }

    async def feedback(request: ApiRequest) -> Rows:
        hub = hubs.by_name(request["name"])
        letters = await iothub.c2d.feedback.letters(space_of(hub.name), FEEDBACK)
        return Rows([iothub.c2d.record_of(letter) for letter in letters])

    one = "/hubs/{name}"
    twin_of, mail = f"{one}/twins/{{device:path}}", f"{one}/mail/{{device:path}}"
    return [
        Endpoint("GET", twin_of, Right.READ, "Return the twin of a device.", twin),
        Endpoint("PATCH", twin_of, Right.OPERATE, "Update tags and desired properties.", change_twin, TwinPatch),
        Endpoint(
            "POST",
            f"{one}/methods/{{device:path}}",
            Right.OPERATE,
            "Invoke a direct method.",
            call,
            MethodCallBody,
            waits=True,
        ),
        Endpoint("POST", mail, Right.OPERATE, "Send a cloud-to-device message.", send, NewMail, status=201),
        Endpoint("GET", mail, Right.READ, "List the queued messages of a device.", waiting),
        Endpoint("DELETE", mail, Right.OPERATE, "Purge the queue of a device.", purge),
        Endpoint("GET", f"{one}/feedback", Right.READ, "List message feedback.", feedback),
    ]


def _letter_view(message: QueuedMessage) -> dict[str, Any]:
    return {
        "message": message.id,
        "enqueued": from_micros(message.enqueued_at).isoformat(),
        "expires": from_micros(message.expires_at).isoformat(),
        "deliveries": message.deliveries,
    }
