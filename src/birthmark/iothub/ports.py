"""What IoT Hub's shells ask of each other."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from birthmark.bus.ports import BusRequest, EmptyReply
from birthmark.iothub.model import Hub, Twin
from birthmark.iothub.wire import MethodCall


class Notify(BusRequest[EmptyReply], frozen=True, tag="iothub.notify"):
    """Tell a device that is connected there what is desired of it; without a topic, that messages wait for it."""

    hub: str
    device_id: str
    topic: str = ""
    payload: bytes = b""


class SeenAt(NamedTuple):
    """When a device came, or went; None for one that was not here since the server began."""

    at: datetime | None
    is_connected: bool


UNSEEN = SeenAt(None, is_connected=False)


class DevicePresence(Protocol):
    """Who is connected."""

    async def seen(self, hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        """Return when devices came or went last, in the order of `device_ids`."""
        ...

    async def connected_ids(self, hub: str, most: int) -> Sequence[str] | None:
        """Return which devices and modules are connected, in no order; None where they are more than `most`."""
        ...

    async def connected(self, hub: str) -> int:
        """Return how many devices and modules of a hub are connected, to whichever worker."""
        ...


class Notifier(Protocol):
    """Notifies devices, wherever they are connected, of a change that is committed."""

    def desired_changed(self, before: Twin, after: Twin, patch: object, *, replaces: bool) -> None:
        """Send a device that subscribed to it the change of its desired properties."""
        ...

    def mail_came(self, hub: Hub, device_id: str) -> None:
        """Deliver the messages that wait for a device that subscribed to them."""
        ...


class ToDevices(DevicePresence, Protocol):
    """The way from the service to the devices, wherever they are connected."""

    async def call(self, hub: Hub, device_id: str, call: MethodCall) -> tuple[int, Any]:
        """Return a method's status and payload. Raise `DeviceNotOnlineError`, `MethodTimeoutError`."""
        ...
