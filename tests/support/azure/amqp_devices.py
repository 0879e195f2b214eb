"""Devices at the other end of a hub's AMQP connection, as SDKs and IoT Edge attach their links."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from birthmark.amqp.message import BATCH_FORMAT, AmqpMessage, DataBody, MessageProperties, ValueBody, read_message
from birthmark.amqp.performatives import (
    AcceptedOutcome,
    Attach,
    Detach,
    Disposition,
    Flow,
    RejectedOutcome,
    Transfer,
)
from birthmark.amqp.values import Symbol
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication
from support.azure.amqp_world import BackEnd
from support.azure.hub_world import World

KEY = b"k" * 32
SAS = DeviceAuthentication(AuthenticationType.SAS, None, None, KEY, b"s" * 32)
"""Credentials of the devices."""


async def a_device(world: World, name: str, *, is_edge: bool = False, parent: Device | None = None) -> Device:
    """Create a device, or a gateway, below a gateway."""
    capabilities = wire.DeviceCapabilities(iot_edge=is_edge)
    scopes = [] if parent is None else [str(parent.scope)]
    body = wire.DeviceBody(name, capabilities=capabilities, parent_scopes=scopes)
    return await world.iothub.registry.put(world.hub, name, body, SAS, None, actor="test")


def device_token(world: World, name: str, key: bytes = KEY, lasts: timedelta = timedelta(hours=1)) -> str:
    """Return the token of a device or module, as device SDKs sign it."""
    resource = f"{world.hub.host}/{wire.own_topics(name).rstrip('/')}"
    return render_sas(resource, hmac_sha256(key), world.clock.now() + lasts)


class Gateway(BackEnd):
    """A client with any number of devices on its connection."""

    async def opened(self) -> None:
        """Open the connection, with the links to `$cbs`."""
        self.begin()
        self.cbs = self.attach("$cbs", receives=False)
        self.attach("$cbs", receives=True, credit=1000)
        self.answers = 0

    async def present(self, name: str, text: str = "", kind: str = "servicebus.windows.net:sastoken") -> int:
        """Present a token, and return the status."""
        asked = {"operation": "put-token", "type": kind, "name": name}
        before = len(self.statuses())
        body = ValueBody(text or device_token(self.world, name))
        self.transfer(self.cbs, AmqpMessage(body, MessageProperties(message_id=name), asked))
        await self.until(lambda: len(self.statuses()) > before)
        return self.statuses()[-1]

    def address(self, name: str, feature: str) -> str:
        return f"/{wire.own_topics(name)}{feature}"

    async def link(self, name: str, feature: str, *, receives: bool = False, credit: int = 0, **more: Any) -> int:
        """Attach a link of a device, and return its handle once the hub has decided."""
        properties = {Symbol(f"com.microsoft:{key.replace('_', '-')}"): value for key, value in more.items()}
        handle = self.attach(self.address(name, feature), receives=receives, properties=properties)
        await self.until(lambda: self.is_decided(handle))
        if receives and credit:
            self.grant(handle, credit)
        return handle

    async def decided(self, handle: int) -> None:
        """Wait until the hub has accepted or refused a link."""
        await self.until(lambda: self.is_decided(handle))

    async def received(self, handle: int, count: int = 1) -> None:
        """Wait until a link has received so many messages."""
        await self.until(lambda: len(self.deliveries(handle)) >= count)

    def is_decided(self, handle: int) -> bool:
        return handle in {one.handle for one in self.got(Attach)} | {one.handle for one in self.got(Detach)}

    def send_body(self, handle: int, body: bytes, **more: Any) -> int:
        """Send telemetry, and return its delivery ID."""
        self.transfer(handle, AmqpMessage(DataBody((body,)), **more))
        return self.delivery_id - 1

    def transfer_batch(self, handle: int, payload: bytes, message_format: int = BATCH_FORMAT) -> None:
        """Send a delivery with a message format."""
        self.send(Transfer(handle, self.delivery_id, b"t", message_format, settled=False), payload)
        self.delivery_id += 1

    async def until_async(self, read: Callable[[], Awaitable[int]], wanted: int) -> None:
        async with asyncio.timeout(10):
            while await read() != wanted:
                await asyncio.sleep(0.005)

    def outcome_of(self, delivery_id: int) -> str | None:
        """Return how the hub settled a delivery: accepted, or the condition of its refusal."""
        for one in self.got(Disposition):
            last = one.first if one.last is None else one.last
            if one.first <= delivery_id <= last:
                if isinstance(one.state, RejectedOutcome) and one.state.error is not None:
                    return str(one.state.error.condition)
                return "accepted" if isinstance(one.state, AcceptedOutcome) else str(one.state)
        return None

    async def settled(self, delivery_id: int) -> str:
        await self.until(lambda: self.outcome_of(delivery_id) is not None)
        return str(self.outcome_of(delivery_id))

    def deliveries(self, handle: int) -> list[tuple[Transfer, AmqpMessage]]:
        """Return what a link received."""
        return [
            (one, read_message(payload))
            for one, payload in self.heard
            if isinstance(one, Transfer) and one.handle == handle
        ]

    def credit_of(self, handle: int) -> int:
        return max((one.link_credit or 0 for one in self.got(Flow) if one.handle == handle), default=0)
