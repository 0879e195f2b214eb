"""Messages that some rule may want, as they are noted before their publisher hears that they are safe."""

from typing import Any

import msgspec


class Noted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of the stream that an engine reads.

    `device_id` is the client that published it, and empty for what the cloud itself or an operator says. `trail` are
    the rules whose republishing led to it, oldest first; `only` is the one rule that it is for (basic ingest).
    """

    device_id: str
    enqueued_micros: int
    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False
    properties: tuple[Any, ...] = ()
    """As `birthmark.mqtt.properties.Properties`, with numbers for names."""
    principal: str = ""
    trail: tuple[str, ...] = ()
    only: str = ""

    @property
    def publisher(self) -> str:
        """Whose share of the rules' time it uses: its principal's, under however many client ids that publishes."""
        return self.principal or self.device_id

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.payload) + len(self.topic) + 64
