"""What the broker needs of a cloud: a way to each client. And what a stream is."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from birthmark.broker.model import BrokerMessage, Done
from birthmark.broker.rules.partitions import Positions
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.admission import CloseReason


class ClientConnection(Protocol):
    """A client's one connection."""

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        """Send a message, or drop it: the client's policy forbids it, or it has no room for more."""
        ...

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        """Send a message that stays in the queue until it is acknowledged; say False when the client may not get it."""
        ...

    def may_get(self, topic: str) -> bool:
        """Say whether the client may get messages to a topic now."""
        ...

    def end(self, reason: CloseReason) -> None:
        """Close it; `Broker.disconnect` has been called, or will be."""
        ...

    async def left(self) -> None:
        """Return when nothing is held any more that its client's next connection is to find, at whichever worker."""
        ...


class Watch(Protocol):
    """Hears of every connection of this worker, in whichever space."""

    def came(self, space: str, client: str, connection: ClientConnection) -> None:
        """Hear that a client is connected."""
        ...

    def went(self, space: str, client: str, reason: CloseReason) -> None:
        """Hear that it is no more, or that its next connection is there."""
        ...


class PublishListener(Protocol):
    """Looks at everything that is published in a space."""

    def take(self, messages: Sequence[BrokerMessage], done: Done) -> tuple[Done, Awaitable[None] | None] | None:
        """Take what is wanted of it, which is safe before `done` is called; None where nothing is.

        Return what is to be called in the place of `done`, and what has to be awaited before the publisher's next ones.
        """
        ...

    def wants(self, topic: str) -> bool:
        """Say whether a message to this topic would be taken."""
        ...


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamPage(Generic[T]):
    """A part of a stream: `next` is where the part after it begins; `is_end` says that there is no more yet.

    `is_gap` says that messages which follow where it was to begin were trimmed before anybody read them there.
    """

    items: Sequence[T]
    next: Positions
    is_end: bool
    is_gap: bool


class MessageStream(Protocol[T]):
    """Messages in the order of their commits, kept for a time and read by whoever wants, from wherever it wants.

    Everything that waits for the database raises `UnavailableError`.
    """

    def append(self, key: int, items: Sequence[T], size: int, done: Done) -> None:
        """Queue at most `MAX_BURST` messages of one device, `size` bytes in all.

        `done` is called with None when they are durable, else with why they are not.
        """
        ...

    async def settled(self) -> None:
        """Return when all that was appended is durable or refused."""
        ...

    async def read(
        self, after: Positions, limit: int, device: str | None = None, *, most_bytes: int | None = None
    ) -> StreamPage[T]:
        """Return what follows, oldest first, of one device or of all.

        A page may be short or empty before the end: it has looked at its share, or its messages have `most_bytes` as
        they are kept.
        """
        ...

    async def latest(self, limit: int, device: str | None = None) -> list[T]:
        """Return the newest messages, oldest first."""
        ...

    async def find(self, at: int) -> Positions:
        """Return where to begin in order to get what was written at a time, in microseconds since 1970, and later."""
        ...

    async def end(self) -> Positions:
        """Return where to begin in order to get only what comes from now on."""
        ...

    async def tail(self, after: Positions, wait_s: float) -> bool:
        """Wait until something may follow; say False when the time is up first."""
        ...

    async def position(self, group: str) -> Positions | None:
        """Return how far a group has read; None for one that never said."""
        ...

    async def set_position(self, group: str, position: Positions) -> None:
        """Note how far a group has read."""
        ...

    async def trim(self, before: int, keep_bytes: int) -> int:
        """Forget what was written before a time, and the oldest of what is more than so many bytes.

        Return how many bytes are kept.
        """
        ...
