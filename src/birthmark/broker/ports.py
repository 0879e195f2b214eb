"""Ports of the broker: client connections, observers and message streams."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from birthmark.broker.model import BrokerMessage, Done
from birthmark.broker.rules.stream_partitions_and_positions import Positions
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.mqtt_service_interface import CloseReason


class ClientConnection(Protocol):
    """The connection of a client."""

    __slots__ = ()

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        """Send a message, or drop it if the client's policy forbids it or its buffer is full."""
        ...

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        """Send a message that stays queued until it is acknowledged.

        Return False if the client may not receive it.
        """
        ...

    def may_get(self, topic: str) -> bool:
        """Return whether the client may currently receive messages of a topic."""
        ...

    def end(self, reason: CloseReason) -> None:
        """Close the connection; `Broker.disconnect` was called, or will be."""
        ...

    async def wait_released(self) -> None:
        """Wait until the connection holds no locks that the client's next connection needs, on any worker."""
        ...


class PresenceListener(Protocol):
    """Observer of every connection of this worker, in all namespaces."""

    def on_connect(self, space: str, client: str, connection: ClientConnection) -> None:
        """Handle a client's connect."""
        ...

    def on_disconnect(self, space: str, client: str, reason: CloseReason) -> None:
        """Handle a client's disconnect, or its takeover by a new connection."""
        ...


class PublishListener(Protocol):
    """Listener for everything that is published in a namespace."""

    def take(self, messages: Sequence[BrokerMessage], done: Done) -> tuple[Done, Awaitable[None] | None] | None:
        """Take the messages it needs and make them durable before `done` is called.

        Return None without a match. Return the callback that replaces `done`, and an awaitable to complete before the
        publisher's next messages.
        """
        ...

    def wants(self, topic: str) -> bool:
        """Return whether a message on this topic would be accepted."""
        ...


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamPage(Generic[T]):
    """A page of a stream: `next` is the start of the next page.

    `is_end` means that no more messages exist yet. `is_gap` means that messages after the requested start were trimmed
    before they were read.
    """

    items: Sequence[T]
    next: Positions
    is_end: bool
    is_gap: bool


@dataclass(frozen=True, slots=True)
class PartitionPage(Generic[T]):
    """A page of one partition: positions, sequence numbers and messages; `next` is the position that was read last."""

    items: Sequence[tuple[int, int, T]]
    next: int
    is_end: bool


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Retained messages of a partition; the last one has the number `next_number - 1`.

    `last_position` and `last_micros` are 0 if the partition has had no message.
    """

    first_number: int
    next_number: int
    last_position: int
    last_micros: int

    @property
    def is_empty(self) -> bool:
        return self.first_number == self.next_number


class MessageStream(Protocol[T]):
    """Messages in commit order, retained for a limited time; readers start at any position.

    Every operation that waits for the database raises `UnavailableError`.
    """

    def append(self, key: int, items: Sequence[T], size: int, done: Done) -> None:
        """Queue at most `MAX_BURST` messages of one device, `size` bytes in total.

        `done` is called with None when they are durable, otherwise with the error.
        """
        ...

    async def settled(self) -> None:
        """Wait until all appended messages are durable or refused."""
        ...

    async def read(
        self, after: Positions, limit: int, device: str | None = None, *, most_bytes: int | None = None
    ) -> StreamPage[T]:
        """Return the messages after a position, oldest first, of one device or of all.

        A page may be short or empty before the end: it has reached its scan limit, or its messages have `most_bytes` in
        stored form.
        """
        ...

    async def latest(self, limit: int, device: str | None = None) -> list[T]:
        """Return the newest messages, oldest first."""
        ...

    async def read_partition(self, partition: int, after: int, limit: int, *, most_bytes: int) -> PartitionPage[T]:
        """Return the messages of a partition after a position, with their sequence numbers."""
        ...

    async def find_number(self, partition: int, number: int) -> int:
        """Return the position after which the message with a sequence number is read."""
        ...

    async def partition_state(self, partition: int) -> PartitionState:
        """Return the numbers of a partition's retained messages."""
        ...

    async def find(self, timestamp: int) -> Positions:
        """Return the position of the first messages written at or after a time in microseconds since 1970."""
        ...

    async def end(self) -> Positions:
        """Return the position from which to read only new messages."""
        ...

    async def tail(self, after: Positions, wait_s: float) -> bool:
        """Wait until new messages may be available; return False on timeout."""
        ...

    async def position(self, group: str) -> Positions | None:
        """Return the committed position of a group, or None if it has none."""
        ...

    async def set_position(self, group: str, position: Positions) -> None:
        """Commit the position of a group."""
        ...

    async def trim(self, before: int, keep_bytes: int) -> int:
        """Delete messages older than a time, and the oldest messages above a size limit.

        Return the number of bytes retained.
        """
        ...
