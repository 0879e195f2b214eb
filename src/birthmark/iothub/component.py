"""IoT Hub as a component of a server."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.routing import Route

from birthmark import metric_catalog
from birthmark.amqp.events import AmqpEvent
from birthmark.bus import Bus
from birthmark.clock_and_entropy import format_utc
from birthmark.devices.model import DeviceCounts, DevicePart, DeviceState
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.errors import BirthmarkError
from birthmark.iothub import store
from birthmark.iothub.amqp import HubAmqpConnections
from birthmark.iothub.connections import DevicesByBus, HubConnections
from birthmark.iothub.domain_events import (
    ConsumerGroupsChanged,
    DeviceChanged,
    HubCaChanged,
    HubDeleted,
    HubJobChanged,
    HubsChanged,
    ReaderReplaced,
)
from birthmark.iothub.model import Device, Hub, space_of
from birthmark.iothub.mqtt import MqttAdmission
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import is_hub_username
from birthmark.metric_catalog import Sample
from birthmark.net.live_connection import LiveConnection
from birthmark.net.mqtt_driver import Accept
from birthmark.protocol_component import Component, MakeAmqp, Record
from birthmark.store import Database, Statement
from birthmark.store.object_counters import SUMS
from birthmark.store.pagination import each_among

_REVOKED = "taken back: "
"""Prefix of the status reason of a revoked device."""
_STATES = frozenset(
    {DeviceState.CONNECTED, DeviceState.AWAY, DeviceState.DISABLED, DeviceState.REFUSED, DeviceState.REVOKED}
)
_DISABLED = store.state_of(is_enabled=False)


@dataclass(frozen=True, slots=True)
class HubDeviceRecords(DeviceRecords):
    """Device records of hubs."""

    database: Database = field(repr=False)
    iothub: IotHub = field(repr=False)
    mqtt: HubConnections = field(repr=False)

    async def spellings(self, name: str) -> Iterable[str]:
        return await self.iothub.registry.spellings(name)

    async def names(self, names: AbstractSet[str]) -> AbstractSet[str]:
        makers = [device.maker for name in names async for _, device in self._devices(name)]
        return {maker.partition("/")[2] for maker in makers if maker.startswith("dps:")}

    async def thumbprints(self, name: str) -> Iterable[bytes]:
        known = [device.authentication async for _, device in self._devices(name)]
        return [one for by in known for one in (by.primary_thumbprint, by.secondary_thumbprint) if one]

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        for name in sorted(device.names):
            async for hub, found in self._devices(name):
                (seen,) = await self.mqtt.seen(hub.name, [found.device_id])
                how = "not seen since the server's start"
                if seen.at is not None:
                    how = f"{'connected since' if seen.is_connected else 'last seen'} {format_utc(seen.at)}"
                why = f"; {found.status_reason}" if found.status_reason else ""
                state = "enabled" if found.is_enabled else "disabled"
                yield DevicePart(f"hub {hub.name}", "device", found.device_id, state, how + why)

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        why = f"{_REVOKED}{order.reason.value}"
        for name in sorted(order.device.names):
            async for hub, device in self._devices(name):
                is_revoked = not device.is_enabled and (device.status_reason or "").startswith(_REVOKED)
                revoke = partial(self.iothub.registry.revoke, hub, name, why, actor=order.actor)
                yield DeviceAccess(f"hub {hub.name}", "device", name, None if is_revoked else revoke)

    async def _devices(self, name: str) -> AsyncIterator[tuple[Hub, Device]]:
        for hub in self.iothub.hubs.all():
            with contextlib.suppress(BirthmarkError):  # no such device, or an invalid device ID
                yield hub, await self.iothub.registry.device(hub, name)

    def connections(
        self, names: AbstractSet[str], is_presented: Callable[[LiveConnection], bool]
    ) -> Iterator[tuple[str, LiveConnection]]:
        for one in self.mqtt.live_connections():
            if one.device_id in names or is_presented(one.driver):
                yield f"hub {one.hub.name}", one.driver

    def scopes(self) -> Iterable[DeviceScope]:
        for hub in self.iothub.hubs.all():
            yield DeviceScope(
                *(f"hub/{hub.name}", store.place_of(hub.name), _STATES),
                *(partial(self._page, store.NAMES_OF_DEVICES, hub.name), partial(self._find, hub.name)),
                disabled_page=partial(self._page, store.DEVICES_OFF, hub.name),
                tags=partial(self._tags, hub.name),
                space=self.mqtt.space(hub.name),
                is_case_sensitive=True,
            )

    async def _page(self, statement: Statement, hub: str, after: str, limit: int) -> Sequence[str]:
        rows = await self.database.all(statement, hub=hub, after=after, limit=limit)
        return [row["device_id"] for row in rows]

    async def _find(self, hub: str, names: Sequence[str]) -> Mapping[str, DeviceState | None]:
        rows = each_among(self.database, store.DEVICES_NAMED, names, hub=hub)
        enabled = {row["device_id"]: row["enabled"] async for row in rows}
        return {name: None if enabled[name] else DeviceState.DISABLED for name in names if name in enabled}

    async def _tags(self, hub: str, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        rows = each_among(self.database, store.TWINS_NAMED, names, hub=hub)
        return {row["device_id"]: store.tags_of(row) async for row in rows}

    async def counts(self, connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        rows = await self.database.all(SUMS, name=store.DEVICES, from_since=0)
        devices, disabled = Counter[str](), Counter[str]()
        for row in rows:
            devices[row["place"]] += int(row["value"])
            disabled[row["place"]] += int(row["value"]) if row["state"] == _DISABLED else 0
        return [
            DeviceCounts(f"hub/{hub.name}", devices[hub.name], connected.get(space_of(hub.name), 0), disabled[hub.name])
            for hub in self.iothub.hubs.all()
        ]


class HubComponent(Component):
    """The hubs as a component of a server."""

    service = "iothub"
    cloud = "azure_hub"
    websocket_paths = ("/$iothub/websocket",)
    amqp_websocket_paths = ("/$iothub/websocket", "/$servicebus/websocket", "/$servicebus/websocket/")
    space_kinds = frozenset({"hub"})

    def __init__(self, devices: HubDeviceRecords, calls: DevicesByBus, amqp: HubAmqpConnections) -> None:
        self._amqp = amqp
        self.devices, self.mqtt = devices, devices.mqtt
        self._iothub, self._connections, self._calls = devices.iothub, devices.mqtt, calls
        self._mqtt = MqttAdmission(devices.mqtt)

    def routes(self, record: Record) -> Sequence[Route]:
        from birthmark.iothub import http  # noqa: PLC0415 - first request loads it

        return http.routes(self._iothub, self._calls, record)

    def find_acceptor(self, username: str) -> Accept | None:
        return self._mqtt.accept if is_hub_username(username) else None

    def find_amqp(self, _event: AmqpEvent) -> MakeAmqp | None:
        """Return the hubs' side, for every client that no other component claims."""
        return self._amqp.connect

    def subscribe(self, bus: Bus) -> None:
        self._connections.listen(bus)
        bus.on(DeviceChanged, self._connections.recheck)
        bus.on(HubCaChanged, self._connections.recheck_vouched)
        bus.on(HubsChanged, self._connections.recheck_policies)
        bus.on(HubDeleted, self._connections.drop_hub)
        bus.on(ConsumerGroupsChanged, self._amqp.events.check_groups)
        bus.on(ReaderReplaced, self._amqp.events.check_replaced)
        bus.on(HubJobChanged, self._iothub.job_runner.wake)
        bus.on(HubsChanged, self._amqp.recheck_soon)
        bus.on(HubDeleted, self._amqp.recheck_soon)

    def samples(self) -> Iterable[Sample]:
        yield from self._of_streams()
        yield Sample(metric_catalog.AMQP_CONNECTIONS, (), len(self._amqp.live))
        for hub, count in sorted(self._amqp.device_counts().items()):
            yield Sample(metric_catalog.AMQP_DEVICES, (hub,), count)
        for hub, count in sorted(self._amqp.events.counts().items()):
            yield Sample(metric_catalog.EVENT_READERS, (hub,), count)
        for hub, count in sorted(self._amqp.events.sent.items()):
            yield Sample(metric_catalog.EVENTS_SENT, (hub,), count)
        for by, count in sorted(self._iothub.twins.updates.items()):
            yield Sample(metric_catalog.TWINS, (by,), count)
        for outcome, count in sorted(self._calls.calls.items()):
            yield Sample(metric_catalog.METHODS, (outcome,), count)

    def _of_streams(self) -> Iterator[Sample]:
        """Yield telemetry and routing metrics per hub."""
        for hub, stream in self._iothub.telemetry.streams().items():
            yield Sample(metric_catalog.TELEMETRY, (hub,), stream.messages)
            yield Sample(metric_catalog.STREAM_COMMITS, (hub,), stream.commits)
            yield Sample(metric_catalog.KEPT_COMMITS, (hub,), stream.kept_commits)
            yield Sample(metric_catalog.KEPT_BYTES, (hub,), stream.kept_bytes)
        for (hub, outcome), count in sorted(self._iothub.routes.outcomes().items()):
            yield Sample(metric_catalog.ROUTED, (hub, outcome), count)

    async def stored_samples(self) -> AsyncIterator[Sample]:
        for hub, lag_s in sorted((await self._iothub.routes.lags()).items()):
            yield Sample(metric_catalog.ROUTES_LAG, (hub,), lag_s)

    async def settle(self) -> None:
        await self._iothub.routes.wait_for_events()
        await self._iothub.telemetry.wait_until_written()

    async def stop(self) -> None:
        await self._iothub.stop()
