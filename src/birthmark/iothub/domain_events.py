"""Events of changes to hubs, their keys, CA certificates, routes, devices and readers."""

from birthmark.store import Event


class DeviceChanged(Event, frozen=True, tag="iothub.device_changed"):
    """A device or module was changed or deleted: its connection must authenticate again.

    Where a device `is_off`, it may no longer connect, and neither may its modules.
    """

    hub: str
    device_id: str
    is_off: bool = False

    @property
    def entity(self) -> str:
        return f"{self.hub}/{self.device_id}"


class HubsChanged(Event, frozen=True, tag="iothub.hubs_changed"):
    """A hub was created, or one of its keys was rotated."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub


class HubCaChanged(Event, frozen=True, tag="iothub.ca_changed"):
    """A CA certificate of a hub was added, applies to other devices, or was deleted (`is_gone`)."""

    hub: str
    name: str
    is_gone: bool = False

    @property
    def entity(self) -> str:
        return f"{self.hub}/{self.name}"


class HubDeleted(Event, frozen=True, tag="iothub.hub_deleted"):
    """A hub was deleted, with its devices."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub


class RoutingChanged(Event, frozen=True, tag="iothub.routing_changed"):
    """The routes of a hub changed."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub


class ConfigurationsChanged(Event, frozen=True, tag="iothub.configurations_changed"):
    """A configuration of a hub was created, changed or deleted: twins are to be evaluated."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub


class ConsumerGroupsChanged(Event, frozen=True, tag="iothub.consumer_groups_changed"):
    """A consumer group of a hub was created or deleted."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub


class ReaderReplaced(Event, frozen=True, tag="iothub.reader_replaced"):
    """A partition has a new exclusive reader in a consumer group: all others have to end."""

    hub: str
    group: str
    partition: int

    @property
    def entity(self) -> str:
        return f"{self.hub}/{self.group}/{self.partition}"


class HubJobChanged(Event, frozen=True, tag="iothub.job_changed"):
    """A scheduled job of a hub was created or cancelled."""

    hub: str
    job_id: str

    @property
    def entity(self) -> str:
        return f"{self.hub}/{self.job_id}"
