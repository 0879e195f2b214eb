"""The service's way to a device: to whichever worker has its connection."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.bus import Bus, NoAnswerError, NobodyThereError
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.model import Hub, Twin
from birthmark.iothub.mqtt.connections import HubConnections
from birthmark.iothub.mqtt.direct_methods import CallMethod
from birthmark.iothub.ports import Notify, SeenAt
from birthmark.iothub.rules.direct_methods import DeviceNotOnlineError, MethodTimeoutError, check_call
from birthmark.untrusted_text import decode_json

_LOOK_S, _MAX_LOOK_S = 0.1, 2.0
"""How long a call waits until it looks for its device again: the longer, the longer it has waited."""
_STALE_S = 0.05
_CALLED = str(CallMethod.__struct_config__.tag)
_OUTCOMES: Mapping[type[BirthmarkError], str] = {DeviceNotOnlineError: "not_online", MethodTimeoutError: "timed_out"}
_json = msgspec.json.Encoder().encode


class DevicesByBus:
    """See the module."""

    def __init__(self, connections: HubConnections, bus: Bus) -> None:
        self._connections = connections
        self._bus = bus
        self.calls: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    async def seen(self, hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        return await self._connections.seen(hub, device_ids)

    async def connected(self, hub: str) -> int:
        return await self._connections.connected(hub)

    async def connected_ids(self, hub: str, most: int) -> Sequence[str] | None:
        return await self._connections.space(hub).connected(most)

    async def call(self, hub: Hub, device_id: str, call: wire.MethodCall) -> tuple[int, Any]:
        """Return a method's status and payload; wait for the device as long as the call says."""
        try:
            answer = await self._call(hub, device_id, call)
        except BirthmarkError as error:
            self.calls[_OUTCOMES.get(type(error), "refused")] += 1
            raise
        self.calls["answered"] += 1
        return answer

    def end_calls(self) -> None:
        """End every call that waits for its device to come, and each that comes later, as the server stops."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        """Wait. Raise `NoAnswerError` as soon as the server stops."""
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
            """What is called, and answers, is the device that was meant: another may have its name by now."""
            nonlocal looked
            if loop.time() - looked > _STALE_S:
                await registry.check_is_there(hub, identity)
                looked = loop.time()

        while True:
            try:
                owner = await self._owner(hub, device_id)
                await look_again()
                answer = await self._bus.ask(owner, asked, response_s + 1.0)
            except (DeviceNotOnlineError, NobodyThereError) as error:  # or its worker died, and it comes to another
                if (left := patience - loop.time()) <= 0:
                    raise DeviceNotOnlineError(device_id=device_id) from error
                waited = call.connect_timeout_in_seconds - left
                await self._pause(min(left, max(_LOOK_S, min(waited / 4, _MAX_LOOK_S))))
                continue
            await look_again()
            return answer.status, decode_json(answer.payload)

    def desired_changed(self, before: Twin, after: Twin, patch: object, *, replaces: bool) -> None:
        """Tell a device that listens what is desired of it now."""
        payload = wire.desired_patch(before, after, patch, replaces=replaces)
        if payload is not None:
            topic = wire.desired_topic(after.desired.version)
            self._tell(after.hub, after.device_id, Notify(after.hub, after.device_id, topic, payload))

    def mail_came(self, hub: Hub, device_id: str) -> None:
        """Let a device that listens have its messages."""
        self._tell(hub.name, device_id, Notify(hub.name, device_id))

    def _tell(self, hub: str, device_id: str, what: Notify) -> None:
        space = self._connections.space(hub)
        if device_id in space.live:
            self._bus.tell(self._bus.worker, (what,))
        elif not space.is_alone:
            space.spawn(self._tell_elsewhere(hub, device_id, what))

    async def _tell_elsewhere(self, hub: str, device_id: str, what: Notify) -> None:
        owner = await self._connections.space(hub).owner(device_id)
        if owner is not None:
            self._bus.tell(owner, (what,))

    async def _owner(self, hub: Hub, device_id: str) -> str:
        owner = await self._connections.space(hub.name).owner(device_id)
        if owner is None:
            raise DeviceNotOnlineError(device_id=device_id)
        return owner
