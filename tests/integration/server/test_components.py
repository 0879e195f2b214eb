"""A component that nothing names: its devices are listed, counted, shown and revoked, its metrics and events served."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark import metric_catalog
from birthmark.bus import Bus
from birthmark.bus.local import LocalBus
from birthmark.devices.model import DeviceCounts, DeviceFilter, DevicePart, DeviceState
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.devices.revocation import DeviceRevoker
from birthmark.devices.search import DeviceSearch
from birthmark.metric_catalog import Sample
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.protocol_component import Component, Record
from birthmark.server.metrics_sources import MetricsSource
from birthmark.server.mqtt_and_http_dispatch import Applications
from birthmark.server.settings import Settings
from support.fakes import FakeClock, SeededEntropy
from support.kills.interleaved import opened
from support.kills.interleaved_operations import OPERATOR, fill
from support.server.asgi import request

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


class MeterRecords(DeviceRecords):
    """Meters of a protocol that Birthmark does not have: names, and whether each is disabled."""

    def __init__(self, **meters: bool) -> None:
        self.meters = meters

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        for name in device.names & self.meters.keys():
            yield DevicePart("meters", "meter", name, "disabled" if self.meters[name] else "enabled")

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for name in order.device.names & self.meters.keys():

            async def disable(name: str = name) -> None:
                self.meters[name] = True

            yield DeviceAccess("meters", "meter", name, None if self.meters[name] else disable)

    def scopes(self) -> Iterable[DeviceScope]:
        return (DeviceScope("meters", "meters", frozenset({DeviceState.DISABLED}), self._page, self._find),)

    async def _page(self, after: str, limit: int) -> Sequence[str]:
        return sorted(name for name in self.meters if name > after)[:limit]

    async def _find(self, names: Sequence[str]) -> Mapping[str, DeviceState | None]:
        return {name: DeviceState.DISABLED if self.meters[name] else None for name in names if name in self.meters}

    async def counts(self, _connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        return [DeviceCounts("meters", len(self.meters))]


class MeterComponent(Component):
    """The meters as a component of a server."""

    def __init__(self, records: MeterRecords) -> None:
        self.devices: MeterRecords = records
        self.came: list[str] = []

    def routes(self, _record: Record) -> Sequence[Route]:
        async def meters(_request: Request) -> Response:
            return JSONResponse(sorted(self.devices.meters))

        return [Route("/meters", meters)]

    def subscribe(self, bus: Bus) -> None:
        self.came.append("subscribed")

    def samples(self) -> Iterable[Sample]:
        yield Sample(metric_catalog.REGISTRATIONS, (), len(self.devices.meters))

    async def settle(self) -> None:
        self.came.append("settled")

    async def stop(self) -> None:
        self.came.append("stopped")


async def test_its_routes_are_served(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        meters = MeterComponent(MeterRecords(a=True))
        more = replace(rooms, components=[*rooms.components, meters])
        cloud = Applications(more, Settings(data=str(tmp_path)), FakeClock(), SeededEntropy()).cloud()
        answer = await request(cloud, "GET", "https://localhost:8443/meters", headers={"host": "localhost"})
        assert (answer.status, answer.text) == (200, '["a"]')


async def test_a_device_called_as_a_part_of_dps_paths_is_reached_at_its_hub(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        cloud = Applications(rooms, Settings(data=str(tmp_path)), FakeClock(), SeededEntropy()).cloud()
        url = "https://localhost:8443/twins/registrations/methods?api-version=2021-04-12"
        answer = await request(cloud, "POST", url, headers={"host": "localhost"})
        assert "iothub-errorcode" in answer.headers


class NoAlerting:
    own = last = None


async def test_its_metrics_are_served_and_it_is_subscribed_and_stopped(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        meters = MeterComponent(MeterRecords(a=True, b=False))
        more = replace(rooms, components=[*rooms.components, meters])
        metering = MetricsSource(more, cast("Any", NoAlerting()))
        assert Sample(metric_catalog.REGISTRATIONS, (), 2) in await metering.samples()
        more.subscribe(LocalBus(rooms.database))
        await more.settled()
        await more.stop()
        assert meters.came == ["subscribed", "settled", "stopped"]


async def test_its_devices_are_listed_counted_shown_and_revoked(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        records = MeterRecords(**{"meter-1": False, "meter-2": True})
        directory = replace(rooms.devices, records=[*rooms.devices.records, records])
        search = DeviceSearch(directory, FakeClock())
        page = await search.find(DeviceFilter(scope="meters"), "", 10, sees=lambda _: True)
        assert [(one.name, list(one.states)) for one in page.items] == [
            ("meter-1", []),
            ("meter-2", [DeviceState.DISABLED]),
        ]
        assert DeviceCounts("meters", 2) in await directory.counts(sees=lambda _: True)
        assert [one.what for one in await directory.show("meter-1", sees=lambda _: True)] == ["meter"]
        done = await DeviceRevoker(directory).revoke("meter-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
        assert ("meters", "meter-1", "taken back") in [(one.place, one.id, one.became) for one in done]
        assert records.meters == {"meter-1": True, "meter-2": True}
