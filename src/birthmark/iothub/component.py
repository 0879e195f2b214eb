"""IoT Hub as a component of a server."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from starlette.routing import BaseRoute

from birthmark import metrics
from birthmark.bus import Bus
from birthmark.component import Component, Record
from birthmark.iothub.devices import HubDeviceRecords
from birthmark.iothub.events import DeviceChanged, HubCaChanged, HubDeleted, HubsChanged
from birthmark.iothub.mqtt import DevicesByBus
from birthmark.iothub.wire import is_hub_username
from birthmark.metrics import Sample
from birthmark.mqtt.packets import Connect
from birthmark.net.admission import Admission
from birthmark.net.pump import MqttPump


class HubComponent(Component):
    """The hubs."""

    service = "iothub"
    cloud = "azure_hub"
    websocket_paths = ("/$iothub/websocket",)
    space_kinds = frozenset({"hub"})

    def __init__(self, devices: HubDeviceRecords, calls: DevicesByBus) -> None:
        self.devices, self.mqtt = devices, devices.mqtt
        self._iothub, self._connections, self._calls = devices.iothub, devices.mqtt, calls

    def routes(self, record: Record) -> Sequence[BaseRoute]:
        from birthmark.iothub import http  # noqa: PLC0415 - the first request loads it

        return http.routes(self._iothub, self._calls, record)

    def has_username(self, username: str) -> bool:
        return is_hub_username(username)

    async def accept(self, pump: MqttPump, packet: Connect) -> Admission:
        return await self._connections.accept(pump, packet)

    def subscribe(self, bus: Bus) -> None:
        self._connections.listen(bus)
        bus.on(DeviceChanged, self._connections.recheck)
        bus.on(HubCaChanged, self._connections.recheck_vouched)
        bus.on(HubsChanged, self._connections.recheck_policies)
        bus.on(HubDeleted, self._connections.drop_hub)

    def samples(self) -> Iterable[Sample]:
        yield from self._of_streams()
        for by, count in sorted(self._iothub.twins.updates.items()):
            yield Sample(metrics.TWINS, (by,), count)
        for outcome, count in sorted(self._calls.calls.items()):
            yield Sample(metrics.METHODS, (outcome,), count)

    def _of_streams(self) -> Iterator[Sample]:
        """Yield what hubs accepted, and what left them by routes."""
        for hub, stream in self._iothub.telemetry.streams().items():
            yield Sample(metrics.TELEMETRY, (hub,), stream.messages)
            yield Sample(metrics.STREAM_COMMITS, (hub,), stream.commits)
            yield Sample(metrics.KEPT_COMMITS, (hub,), stream.kept_commits)
            yield Sample(metrics.KEPT_BYTES, (hub,), stream.kept_bytes)
        for (hub, outcome), count in sorted(self._iothub.routes.outcomes().items()):
            yield Sample(metrics.ROUTED, (hub, outcome), count)

    async def stored_samples(self) -> AsyncIterator[Sample]:
        for hub, lag_s in sorted((await self._iothub.routes.lags()).items()):
            yield Sample(metrics.ROUTES_LAG, (hub,), lag_s)

    async def settle(self) -> None:
        await self._iothub.routes.settled()
        await self._iothub.telemetry.settled()

    async def stop(self) -> None:
        await self._iothub.stop()
