"""What a device needs of a network, in messages.

Every method that talks raises one of `links.errors`: `UnavailableError`s where trying again may help,
`UnauthenticatedError`s where one side does not believe the other.
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
    """An MQTT message that came in."""

    topic: str
    payload: bytes


class HttpsClient(Protocol):
    """One HTTPS request at a time, each on a connection of its own."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        """Return the answer, whatever its status."""


class MqttClient(Protocol):
    """One MQTT 3.1.1 connection: connect once, use, close. It never reconnects by itself."""

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        """Connect, without a will, and say whether the server had a session of ours. Raise `MqttRefusedError`."""

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Ask for messages. Raise `SubscriptionRefusedError`."""

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Send a message; with QoS 1 return when the server has acknowledged it."""

    async def next_message(self) -> ReceivedMessage:
        """Return the next message. Raise `LinkLostError` when the connection is over and all were taken."""

    async def lost(self) -> Exception:
        """Return when the connection is over, with the reason."""

    async def close(self) -> None:
        """Say goodbye and close; closing twice is harmless."""


class Links(Protocol):
    """Makes connections with one identity."""

    def https(self) -> HttpsClient: ...

    def mqtt(self) -> MqttClient:
        """Return a fresh client, not yet connected."""
