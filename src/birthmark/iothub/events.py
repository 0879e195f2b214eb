"""What the hubs announce."""

from birthmark.store import Event


class DeviceChanged(Event, frozen=True, tag="iothub.device_changed"):
    """A device, or a module by its name, was changed or removed: its connection must prove itself again.

    Where a device may connect no more, `is_off`, its modules may not either.
    """

    hub: str
    device_id: str
    is_off: bool = False

    @property
    def entity(self) -> str:
        return f"{self.hub}/{self.device_id}"


class HubsChanged(Event, frozen=True, tag="iothub.hubs_changed"):
    """A hub was made, or given another key."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub


class HubCaChanged(Event, frozen=True, tag="iothub.ca_changed"):
    """A CA certificate of a hub came, or counts for other devices than before; or none any more, where it `is_gone`."""

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
    """Other routes of a hub count from now on."""

    hub: str

    @property
    def entity(self) -> str:
        return self.hub
