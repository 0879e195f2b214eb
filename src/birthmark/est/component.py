"""EST as a component of a server."""

from collections.abc import Iterable

from birthmark import metrics
from birthmark.component import Component
from birthmark.est.devices import EstDeviceRecords
from birthmark.est.service import EstService
from birthmark.metrics import Sample


class EstComponent(Component):
    """The EST server."""

    service = "est"

    def __init__(self, est: EstService, devices: EstDeviceRecords) -> None:
        self.devices = devices
        self._est = est

    def samples(self) -> Iterable[Sample]:
        return (Sample(metrics.RENEWED, (), self._est.renewals),)
