"""What IoT Hub's shells ask of each other."""

from datetime import datetime
from typing import Protocol


class Presence(Protocol):
    """Who is connected."""

    def connected_since(self, hub: str, device_id: str) -> datetime | None:
        """Return since when a device is connected, or None."""
        ...
