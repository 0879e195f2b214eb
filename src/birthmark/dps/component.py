"""DPS as a component of a server."""

from collections.abc import Iterable

from birthmark import metrics
from birthmark.component import Component
from birthmark.dps.devices import DpsDeviceRecords
from birthmark.metrics import Sample


class DpsComponent(Component):
    """The provisioning services."""

    cloud = "azure_dps"

    def __init__(self, devices: DpsDeviceRecords) -> None:
        self.devices, self.mqtt = devices, devices.mqtt
        self._instances, self._registrations = devices.instances, devices.registrations

    def samples(self) -> Iterable[Sample]:
        return (Sample(metrics.REGISTRATIONS, (), self._registrations.count),)

    async def stop(self) -> None:
        await self._instances.stop()
