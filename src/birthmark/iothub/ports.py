"""What IoT Hub's shells ask of each other."""

from datetime import datetime
from typing import Any, Protocol

from birthmark.bus.ports import Done, Request
from birthmark.iothub.model import Hub, Twin
from birthmark.iothub.wire import MethodCall


class Notify(Request[Done], frozen=True, tag="iothub.notify"):
    """Tell a device that is connected there what is desired of it; without a topic, that messages wait for it."""

    hub: str
    device_id: str
    topic: str = ""
    payload: bytes = b""


class Presence(Protocol):
    """Who is connected."""

    def connected_since(self, hub: str, device_id: str) -> datetime | None:
        """Return since when a device is connected, or None."""
        ...

    def last_seen(self, hub: str, device_id: str) -> datetime | None:
        """Return when a device came, or when it went; None for one that was not here since the server began."""
        ...


class ToDevices(Presence, Protocol):
    """The way from the service to the devices, wherever they are connected."""

    async def call(self, hub: Hub, device_id: str, call: MethodCall) -> tuple[int, Any]:
        """Return a method's status and payload. Raise `DeviceNotOnlineError`, `MethodTimeoutError`."""
        ...

    def desired_changed(self, before: Twin, after: Twin, patch: object, *, replaces: bool) -> None:
        """Tell a device that listens what is desired of it now."""
        ...

    def mail_came(self, hub: Hub, device_id: str) -> None:
        """Let a device that listens have its messages."""
        ...
