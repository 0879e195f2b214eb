"""A live connection of a device or module, whatever its protocol."""

from abc import abstractmethod
from typing import Protocol

from birthmark.broker import ConnectedSession
from birthmark.broker.ports import ClientConnection
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import AuthenticationType, Hub, Identity
from birthmark.net.live_connection import LiveConnection
from birthmark.net.mqtt_service_interface import CloseReason


class DeviceDriver(LiveConnection, Protocol):
    """The transport of a device's connection; of a shared transport, the device's part."""

    def note(self, error: BirthmarkError) -> object:
        """Record a refusal that does not end the connection."""
        ...

    def refuse(self, error: BirthmarkError) -> None:
        """Record a refusal, and end the connection."""
        ...


class DeviceConnection(ClientConnection):
    """The connection of a device or module; `is_of_policy` means that a token of a hub policy opened it."""

    __slots__ = ()

    hub: Hub
    device_id: str
    """Name of the device or module."""
    identity: Identity
    is_of_policy: bool
    renewed_at: int = 0
    """Time of the last renewal of its token, in microseconds."""
    driver: DeviceDriver

    @property
    def is_vouched_for(self) -> bool:
        """Return whether a hub CA authenticated the connection."""
        return self.identity.authentication.type is AuthenticationType.AUTHORITY

    @abstractmethod
    def attach(self, session: ConnectedSession) -> None:
        """Start with the session that the broker assigned."""

    @abstractmethod
    def deliver_messages(self) -> None:
        """Deliver queued messages if the device is subscribed."""

    @abstractmethod
    def end(self, reason: CloseReason) -> None:
        """End the connection."""
