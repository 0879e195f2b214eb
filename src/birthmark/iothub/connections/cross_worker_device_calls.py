"""Dispatch of service calls to the worker with the device's connection."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.bus import Bus, NoAnswerError, WorkerUnreachableError
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.connections.device_connections import HubConnections
from birthmark.iothub.connections.direct_methods import CallMethod
from birthmark.iothub.model import Hub, Twin
from birthmark.iothub.ports import Notify, SeenAt
from birthmark.iothub.rules.direct_methods import DeviceNotOnlineError, MethodTimeoutError, check_call
from birthmark.untrusted_json_and_text import decode_json

_LOOK_S, _MAX_LOOK_S = 0.1, 2.0
"""Minimum and maximum poll interval of a call that waits for its device; it grows with the time waited."""
_STALE_S = 0.05
_CALLED = str(CallMethod.__struct_config__.tag)
_OUTCOMES: Mapping[type[BirthmarkError], str] = {DeviceNotOnlineError: "not_online", MethodTimeoutError: "timed_out"}
_json = msgspec.json.Encoder().encode


class DevicesByBus:
    """Service-to-device calls over the message bus."""

    def __init__(self, connections: HubConnections, bus: Bus) -> None:
        self._connections = connections
        self._bus = bus
        self.calls: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    async def seen(self, hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        return await self._connections.seen(hub, device_ids)

    async def connected(self, hub: str) -> int:
        return await self._connections.connected(hub)

    async def connected_ids(self, hub: str, limit: int) -> Sequence[str] | None:
        return await self._connections.space(hub).connected(limit)

    async def call(self, hub: Hub, device_id: str, call: wire.MethodCall) -> tuple[int, Any]:
        """Return a method's status and payload; wait for the device as long as the call allows."""
        try:
            answer = await self._call(hub, device_id, call)
        except BirthmarkError as error:
            self.calls[_OUTCOMES.get(type(error), "refused")] += 1
            raise
        self.calls["answered"] += 1
        return answer

    def end_calls(self) -> None:
        """Fail all calls that wait for a device, and later ones, at server shutdown."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, but raise `NoAnswerError` as soon as the server stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise NoAnswerError(reason="the server stops", request=_CALLED, worker=self._bus.worker)

    async def _call(self, hub: Hub, device_id: str, call: wire.MethodCall) -> tuple[int, Any]:
        check_call(call, device_id)
        registry = self._connections.iothub.registry
        identity = await registry.identity(hub, device_id)
        response_s = call.response_timeout_in_seconds
        asked = CallMethod(hub.name, device_id, call.method_name, _json(call.payload), response_s)
        loop = asyncio.get_running_loop()
        looked = loop.time()
        patience = looked + call.connect_timeout_in_seconds

        async def look_again() -> None:
            """Verify that the called identity is still the same: another device may have its name."""
            nonlocal looked
            if loop.time() - looked > _STALE_S:
                await registry.check_is_there(hub, identity)
                looked = loop.time()

        while True:
            try:
                owner = await self._owner(hub, device_id)
                await look_again()
                answer = await self._bus.ask(owner, asked, response_s + 1.0)
            except (
                DeviceNotOnlineError,
                WorkerUnreachableError,
            ) as error:  # or its worker died, and it moves to another
                if (left := patience - loop.time()) <= 0:
                    raise DeviceNotOnlineError(device_id=device_id) from error
                waited = call.connect_timeout_in_seconds - left
                await self._pause(min(left, max(_LOOK_S, min(waited / 4, _MAX_LOOK_S))))
                continue
            await look_again()
            return answer.status, decode_json(answer.payload)

    def desired_changed(self, before: Twin, after: Twin, patch: object, *, replaces: bool) -> None:
        """Notify a subscribed device of its desired properties."""
        payload = wire.desired_patch(before, after, patch, replaces=replaces)
        if payload is not None:
            topic = wire.desired_topic(after.desired.version)
            self._tell(after.hub, after.device_id, Notify(after.hub, after.device_id, topic, payload))

    def notify_messages(self, hub: Hub, device_id: str) -> None:
        """Notify a subscribed device of queued messages."""
        self._tell(hub.name, device_id, Notify(hub.name, device_id))

    def _tell(self, hub: str, device_id: str, notification: Notify) -> None:
        space = self._connections.space(hub)
        if device_id in space.live:
            self._bus.tell(self._bus.worker, (notification,))
        elif not space.is_alone:
            space.spawn(self._tell_elsewhere(hub, device_id, notification))

    async def _tell_elsewhere(self, hub: str, device_id: str, notification: Notify) -> None:
        owner = await self._connections.space(hub).owner(device_id)
        if owner is not None:
            self._bus.tell(owner, (notification,))

    async def _owner(self, hub: Hub, device_id: str) -> str:
        owner = await self._connections.space(hub.name).owner(device_id)
        if owner is None:
            raise DeviceNotOnlineError(device_id=device_id)
        return owner
