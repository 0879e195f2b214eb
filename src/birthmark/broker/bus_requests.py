"""What workers ask each other about sessions."""

import msgspec

from birthmark.bus.ports import BusRequest, EmptyReply, Reply
from birthmark.store import Event


class AppendReply(Reply, frozen=True, tag="broker.appended"):
    """The messages are durable; or the session is not there any more, and they have to be taken to where it went."""

    is_here: bool


class AppendTo(BusRequest[AppendReply], frozen=True, tag="broker.append_to"):
    """Queue messages in a session that is connected there; answered when they are durable."""

    sender: str
    space: str
    client: str
    messages: bytes


class LiveMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message that nothing keeps, and who gets it: each by its QoS and options."""

    space: str
    clients: tuple[tuple[str, int, int], ...]
    message: bytes


class DeliverTo(BusRequest[EmptyReply], frozen=True, tag="broker.deliver_to"):
    """Send clients that are connected there what stands in letters, each in its publisher's turns."""

    letters: tuple[LiveMessage, ...]


class SeenThere(Reply, frozen=True, tag="broker.seen_there"):
    """When clients came or went, in microseconds, and why those went that did."""

    clients: dict[str, tuple[int, str | None]]


class LastSeenRequest(BusRequest[SeenThere], frozen=True, tag="broker.ask_seen"):
    """Say of clients when they were there last: of a session that is not kept no row says it."""

    space: str
    clients: tuple[str, ...]


class ClientThere(Reply, frozen=True, tag="broker.client_there"):
    """Whether a client is connected there, for how long its session outlives that, and since when it is."""

    is_there: bool
    expiry_s: int = 0
    since: int | None = None


class AskClient(BusRequest[ClientThere], frozen=True, tag="broker.ask_client"):
    """Say what a connection is."""

    space: str
    client: str


class EndClient(BusRequest[ClientThere], frozen=True, tag="broker.end_client"):
    """End a connection, with `forgets` also its session; say whether it was there."""

    space: str
    client: str
    with_will: bool
    forgets: bool


class ConnectedThere(Reply, frozen=True, tag="broker.connected_there"):
    """How many clients are connected, by space, and what that worker has counted since it began."""

    counts: dict[str, int]
    totals: dict[str, int] = msgspec.field(default_factory=dict)


class ConnectedRequest(BusRequest[ConnectedThere], frozen=True, tag="broker.ask_connected"):
    """Say how many clients are connected there."""


class Yield(BusRequest[EmptyReply], frozen=True, tag="broker.yield"):
    """Let go of a session: its client is about to connect elsewhere. `ends`: to a session of its own."""

    space: str
    client: str
    ends: bool


class SubscriptionsChanged(Event, frozen=True, tag="broker.subscriptions_changed"):
    """Whom a topic leads to has changed; these are shapes of filters that somebody subscribed with."""

    space: str
    shapes: tuple[str, ...] = ()

    @property
    def entity(self) -> str:
        return self.space
