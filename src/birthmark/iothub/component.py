"""IoT Hub as a component of a server."""

from collections.abc import AsyncIterator, Iterable, Iterator

from birthmark import metrics
from birthmark.bus import Bus
from birthmark.component import Component
from birthmark.iothub.devices import HubDeviceRecords
from birthmark.iothub.events import DeviceChanged, HubCaChanged, HubDeleted, HubsChanged
from birthmark.iothub.mqtt import DevicesByBus
from birthmark.metrics import Sample


class HubComponent(Component):
    """The hubs."""

    cloud = "azure_hub"
    space_kinds = frozenset({"hub"})

    def __init__(self, devices: HubDeviceRecords, calls: DevicesByBus) -> None:
        self.devices, self.mqtt = devices, devices.mqtt
        self._iothub, self._connections, self._calls = devices.iothub, devices.mqtt, calls

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
