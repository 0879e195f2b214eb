"""Ports from the service side to connected devices: presence, notifications and direct method calls."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from birthmark.bus.ports import BusRequest, EmptyReply
from birthmark.iothub.model import Hub, Twin
from birthmark.iothub.wire import MethodCall


class Notify(BusRequest[EmptyReply], frozen=True, tag="iothub.notify"):
    """Notify a connected device of its desired properties; without a topic, of queued messages."""

    hub: str
    device_id: str
    topic: str = ""
    payload: bytes = b""


class SeenAt(NamedTuple):
    """Time of the last connect or disconnect; None if the device was not seen since the server started."""

    at: datetime | None
    is_connected: bool


UNSEEN = SeenAt(None, is_connected=False)


class DevicePresence(Protocol):
    """Directory of connected devices."""

    async def seen(self, hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        """Return when devices last connected or disconnected, in the order of `device_ids`."""
        ...

    async def connected_ids(self, hub: str, limit: int) -> Sequence[str] | None:
        """Return the connected devices and modules, in no order; None if there are more than `limit`."""
        ...

    async def connected(self, hub: str) -> int:
        """Return the number of connected devices and modules of a hub, over all workers."""
        ...


class Notifier(Protocol):
    """Notifies devices, wherever they are connected, of committed changes."""

    def desired_changed(self, before: Twin, after: Twin, patch: object, *, replaces: bool) -> None:
        """Send the change of its desired properties to a subscribed device."""
        ...

    def notify_messages(self, hub: Hub, device_id: str) -> None:
        """Deliver queued messages to a subscribed device."""
        ...


class DeviceCalls(DevicePresence, Protocol):
    """Service-to-device calls, wherever the devices are connected."""

    async def call(self, hub: Hub, device_id: str, call: MethodCall) -> tuple[int, Any]:
        """Call a direct method, and return its status and payload.

        Raise `DeviceNotOnlineError`, `MethodTimeoutError`.
        """
        ...


class ConnectedDevices(DeviceCalls, Notifier, Protocol):
    """All that the services need of connected devices."""
