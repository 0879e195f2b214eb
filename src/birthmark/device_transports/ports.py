"""Ports of a device's network access, at the level of messages.

Every method with network access raises an error of `device_transports.errors`: `UnavailableError`s if a retry may help,
`UnauthenticatedError`s if one side does not trust the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from birthmark.mqtt.packets import Connect


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response, read to its end; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A received MQTT message."""

    topic: str
    payload: bytes


class HttpsClient(Protocol):
    """HTTPS client: one request at a time, each on its own connection."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        """Send a request, and return the response, whatever its status."""


class MqttClient(Protocol):
    """One MQTT 3.1.1 connection: connect once, use, close. It never reconnects by itself."""

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        """Connect without a will, and return whether the server had a session. Raise `MqttRefusedError`."""

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe to a topic filter. Raise `SubscriptionRefusedError`."""

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish a message; with QoS 1, wait for the server's acknowledgment."""

    async def next_message(self) -> ReceivedMessage:
        """Return the next message. Raise `LinkLostError` at the end of the connection, after all messages."""

    async def wait_for_loss(self) -> Exception:
        """Wait for the end of the connection and return its cause."""

    async def close(self) -> None:
        """Send DISCONNECT and close; a second call has no effect."""


class Links(Protocol):
    """Factory of connections with one identity."""

    def https(self) -> HttpsClient: ...

    def mqtt(self) -> MqttClient:
        """Return a new client that is not connected yet."""
