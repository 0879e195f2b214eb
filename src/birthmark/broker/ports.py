"""What the broker needs of a cloud: a way to each client, and someone to tell what became of it."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from birthmark.broker.model import Message, Will
from birthmark.net.admission import Closed

if TYPE_CHECKING:
    from birthmark.broker.attached import Attached


class Connection(Protocol):
    """A client's one connection."""

    def deliver(
        self, message: Message, qos: int, *, retain: bool, packet_id: int | None = None, dup: bool = False
    ) -> bool:
        """Send a message; `packet_id` names one that waits in the queue until it is acknowledged.

        Say False when the client does not get it: its policy forbids it, or it has no room for more.
        """
        ...

    def end(self, reason: Closed) -> None:
        """Close it; `Broker.disconnect` has been called, or will be."""
        ...


class Observer(Protocol):
    """What a cloud hears of the clients of its space."""

    def connected(self, attached: "Attached") -> None:
        """A client is there: CONNACK is on its way."""
        ...

    def disconnected(self, attached: "Attached", reason: Closed) -> None:
        """A client that was there is gone."""
        ...

    def lost(self, client: str, epoch: int) -> None:
        """A client is gone whose worker ended before it could say so."""
        ...

    def will(self, client: str, will: Will) -> Awaitable[None] | None:
        """Publish a will."""
        ...

    def overrun(self, client: str, limit: int) -> None:
        """A message was dropped: the client is too slow, or away for too long."""
        ...
