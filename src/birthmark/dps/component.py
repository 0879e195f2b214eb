"""DPS as a component of a server."""

from collections.abc import Iterable, Sequence

from starlette.routing import BaseRoute

from birthmark import metrics
from birthmark.clock import Clock
from birthmark.component import Component, Record
from birthmark.dps.devices import DpsDeviceRecords
from birthmark.dps.wire import is_dps_username
from birthmark.metrics import Sample
from birthmark.mqtt.packets import Connect
from birthmark.net.admission import Admission
from birthmark.net.pump import MqttPump


class DpsComponent(Component):
    """The provisioning services."""

    service = "dps"
    cloud = "azure_dps"

    devices: DpsDeviceRecords

    def __init__(self, devices: DpsDeviceRecords, clock: Clock) -> None:
        self.devices, self.mqtt = devices, devices.mqtt
        self._instances, self._registrations = devices.instances, devices.registrations
        self._clock = clock

    def routes(self, record: Record) -> Sequence[BaseRoute]:
        from birthmark.dps import http  # noqa: PLC0415 - the first request loads it

        services = self._instances, self.devices.enrollments, self._registrations
        return [
            *http.service_routes(*services, record, self._clock),
            *http.device_routes(self._registrations, record, self._clock),
        ]

    def has_username(self, username: str) -> bool:
        return is_dps_username(username)

    async def accept(self, pump: MqttPump, packet: Connect) -> Admission:
        return await self.devices.mqtt.accept(pump, packet)

    def samples(self) -> Iterable[Sample]:
        return (Sample(metrics.REGISTRATIONS, (), self._registrations.count),)

    async def stop(self) -> None:
        await self._instances.stop()
