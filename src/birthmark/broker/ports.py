"""What the broker needs of a cloud: a way to each client, and someone to tell what became of it."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from birthmark.broker.model import Will
from birthmark.mqtt.parcel import Parcel
from birthmark.net.admission import Closed

if TYPE_CHECKING:
    from birthmark.broker.attached import Attached


class Connection(Protocol):
    """A client's one connection."""

    def deliver(self, parcel: Parcel, qos: int) -> None:
        """Send a message, or drop it: the client's policy forbids it, or it has no room for more."""
        ...

    def forward(self, parcel: Parcel, packet_id: int, *, dup: bool) -> bool:
        """Send a message that stays in the queue until it is acknowledged; say False when the client may not get it."""
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
