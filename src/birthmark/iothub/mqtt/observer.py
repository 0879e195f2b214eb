"""What the broker tells of one hub's devices. A will becomes telemetry, and routes may ask who went."""

import asyncio
from collections.abc import Awaitable

from birthmark.broker import Attached
from birthmark.broker.model import Will
from birthmark.broker.rules.partitions import key_of
from birthmark.clock import Clock
from birthmark.errors import UnavailableError
from birthmark.iothub.rules.wills import telemetry_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs import UnknownHubError
from birthmark.net.admission import Closed

_AGAIN_S = 1.0


class HubObserver:
    """See the module."""

    def __init__(self, hub: str, iothub: IotHub, clock: Clock) -> None:
        self._hub = hub
        self._iothub = iothub
        self._clock = clock

    def disconnected(self, attached: Attached, reason: Closed) -> None:
        del reason
        self._iothub.routes.told_later(self._hub, attached.client, is_connected=False)

    def lost(self, client: str, epoch: int) -> None:
        del epoch
        self._iothub.routes.told_later(self._hub, client, is_connected=False)

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        del is_late  # who was taken back has no session that could have kept it
        return self._tell(client, will, self._clock.micros())

    def overrun(self, client: str, limit: int) -> None:
        del client, limit

    async def _tell(self, client: str, will: Will, at: int) -> None:
        """Return when the will is durable: nobody would send it again, so a database that is away is waited for."""
        left = will.message
        message = telemetry_of(client, left.topic, left.payload, at, is_retained=left.retain)
        while True:
            try:
                hub = self._iothub.hubs.by_name(self._hub)
            except UnknownHubError:
                return  # it was deleted, with its telemetry
            try:
                size = len(left.payload) + len(left.topic)
                await self._iothub.telemetry.written(hub, key_of(client.partition("/")[0]), (message,), size)
            except UnavailableError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return
