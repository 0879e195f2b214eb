"""Bus requests between workers about sessions."""

import msgspec

from birthmark.bus.ports import BusRequest, EmptyReply, Reply
from birthmark.store import Event


class AppendReply(Reply, frozen=True, tag="broker.appended"):
    """Reply to `AppendRequest`: the messages are durable, or the session has moved and they must follow it."""

    is_here: bool


class AppendRequest(BusRequest[AppendReply], frozen=True, tag="broker.append_to"):
    """Queue messages in a session connected to the receiver; the reply follows once they are durable."""

    sender: str
    space: str
    client: str
    messages: bytes


class LiveMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message that is not stored, and its receivers, each with QoS and options."""

    space: str
    clients: tuple[tuple[str, int, int], ...]
    message: bytes


class DeliverRequest(BusRequest[EmptyReply], frozen=True, tag="broker.deliver_to"):
    """Deliver live messages to clients connected to the receiver, in each publisher's order."""

    letters: tuple[LiveMessage, ...]


class LastSeenReply(Reply, frozen=True, tag="broker.seen_there"):
    """When clients connected or disconnected, in microseconds, and the reasons for disconnecting."""

    clients: dict[str, tuple[int, str | None]]


class LastSeenRequest(BusRequest[LastSeenReply], frozen=True, tag="broker.ask_seen"):
    """Request when clients were last connected; a session that is not stored has no row with this time."""

    space: str
    clients: tuple[str, ...]


class ClientReply(Reply, frozen=True, tag="broker.client_there"):
    """Whether a client is connected to the receiver, its session expiry, and the time it connected."""

    is_there: bool
    expiry_s: int = 0
    since: int | None = None


class AskClient(BusRequest[ClientReply], frozen=True, tag="broker.ask_client"):
    """Request information about a connection."""

    space: str
    client: str


class EndClient(BusRequest[ClientReply], frozen=True, tag="broker.end_client"):
    """Close a connection, and with `forgets` delete its session; the reply contains whether it existed."""

    space: str
    client: str
    with_will: bool
    forgets: bool


class ConnectedReply(Reply, frozen=True, tag="broker.connected_there"):
    """Number of connected clients by namespace, and the worker's counters since its start."""

    counts: dict[str, int]
    totals: dict[str, int] = msgspec.field(default_factory=dict)


class ConnectedRequest(BusRequest[ConnectedReply], frozen=True, tag="broker.ask_connected"):
    """Request the number of connected clients."""


class LeaseReply(Reply, frozen=True, tag="broker.lease"):
    """Whether the worker has a valid lease."""

    is_fresh: bool


class LeaseRequest(BusRequest[LeaseReply], frozen=True, tag="broker.ask_lease"):
    """Request whether a worker has a valid lease."""


class Yield(BusRequest[EmptyReply], frozen=True, tag="broker.yield"):
    """Release a session whose client is about to connect elsewhere.

    `ends` means that a new session replaces it.
    """

    space: str
    client: str
    ends: bool


class SubscriptionsChanged(Event, frozen=True, tag="broker.subscriptions_changed"):
    """The receivers of topics have changed; `shapes` are those of the new filters."""

    space: str
    shapes: tuple[str, ...] = ()

    @property
    def entity(self) -> str:
        return self.space
