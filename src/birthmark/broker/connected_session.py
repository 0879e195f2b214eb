"""Session of a connected client, the part of its namespace that it uses, and the observer of its events."""

from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from birthmark.broker.model import RETAIN_AS_PUBLISHED, BrokerMessage, SessionRecord, Subscription, Will
from birthmark.broker.ports import ClientConnection
from birthmark.broker.rules.principal_quotas import SpaceRules
from birthmark.broker.rules.send_window import SendWindow, packet_id_of
from birthmark.errors import UnavailableError
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.supervised_tasks import note

_AGAIN_S = 1.0
MAX_HELD = 1000
MAX_HELD_BYTES = 8 * 1024 * 1024


class ConnectedSession:
    """Session of a connected client; `outgoing` is the queue of a stored session.

    `epoch` and `owner` fence its writes. A session starts on hold: nothing is delivered before CONNACK, or while the
    client's permissions are re-evaluated.
    """

    __slots__ = (
        "_held",
        "_held_bytes",
        "_is_reading",
        "client",
        "connection",
        "epoch",
        "expiry_s",
        "has_row",
        "is_claimed",
        "is_on_hold",
        "is_over",
        "is_stored",
        "outgoing",
        "principal",
        "session_present",
        "since",
        "space",
        "subscriptions",
        "tags",
        "will",
    )

    def __init__(
        self,
        space: "SessionNamespace",
        client: str,
        connection: ClientConnection,
        *,
        epoch: int,
        is_claimed: bool,
        is_stored: bool,
        session_present: bool,
        expiry_s: int,
        since: int,
        subscriptions: dict[str, Subscription],
        outgoing: SendWindow | None,
        will: Will | None,
        principal: str = "",
    ) -> None:
        self.space = space
        self.client = client
        self.connection = connection
        self.epoch = epoch
        self.is_claimed = is_claimed  # a row assigns it to this worker
        self.has_row = is_claimed  # has a row; otherwise the first subscription adds it
        self.is_stored = is_stored  # it outlives its connection
        self.session_present = session_present
        self.expiry_s = expiry_s
        self.since = since
        self.subscriptions = subscriptions
        self.outgoing = outgoing
        self.will = will
        self.principal = principal
        self.tags: frozenset[str] = frozenset()
        self.is_over = False
        self.is_on_hold = True
        self._is_reading = False
        self._held: deque[tuple[BrokerMessage, int, int]] | None = None
        self._held_bytes = 0

    @property
    def fence(self) -> dict[str, Any]:
        """The parameters that every write of this session is conditional on."""
        owner = self.space.worker
        return {"key_space": self.space.name, "key_client": self.client, "key_epoch": self.epoch, "key_owner": owner}

    def mark_persisted(self) -> None:
        """Record that the first subscription created the session's row."""
        self.has_row = True

    def depend_on(self, tags: frozenset[str]) -> None:
        """Set the tags of the resources that the connection depends on."""
        self.tags = tags

    def deliver(self, message: BrokerMessage, qos: int, options: int) -> None:
        """Deliver a message that is not queued, now or when the hold ends."""
        if self.is_on_hold:
            self._hold(message, qos, options)
            return
        keeps_flag = bool(options & RETAIN_AS_PUBLISHED)
        if (parcel := self.space.parcel_of(message, retain=message.retain and keeps_flag)) is not None:
            try:
                self.connection.deliver(parcel, qos)
            except LocalProtocolError as error:  # others get it
                note(f"a message to {self.client}", error)

    def _hold(self, message: BrokerMessage, qos: int, options: int) -> None:
        if self._held is None:
            self._held = deque()
        if len(self._held) >= MAX_HELD or self._held_bytes >= MAX_HELD_BYTES:
            self.space.count_dropped(1)
            self.space.observer.overrun(self.client, MAX_HELD)
            return
        self._held.append((message, qos, options))
        self._held_bytes += message.size

    def hold(self) -> None:
        """Hold all deliveries until `resume`."""
        self.is_on_hold = True

    def resume(self) -> None:
        """Deliver the held messages, and end the hold."""
        if self.is_over or not self.is_on_hold:
            return
        self.is_on_hold = False
        held, self._held, self._held_bytes = self._held, None, 0
        for message, qos, options in held or ():
            self.deliver(message, qos, options)
        self.flow()

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Mark queued messages as delivered; other packet IDs are handled by the connection."""
        if self.outgoing is not None and self.outgoing.settle(packet_ids):
            self.space.settle_later(self)
            self.flow()

    def flow(self) -> None:
        """Send the queued messages that are loaded, and read more as space permits."""
        outgoing = self.outgoing
        if outgoing is None or self.is_over or self.is_on_hold:
            return
        while (queued := outgoing.next()) is not None:
            number, message = queued
            packet_id = packet_id_of(number)
            parcel = self.space.parcel_of(message, retain=message.retain)
            dup = number <= outgoing.resent_upto
            if parcel is None or not self._forward(parcel, packet_id, dup=dup):
                outgoing.settle((packet_id,))
                self.space.settle_later(self)
            if not self._may_go_on():
                return
        if not self._is_reading and outgoing.wanted_after is not None:
            self._is_reading = True
            self.space.spawn(self._read(outgoing))

    def _forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        """Send a queued message; return False if it cannot be sent now or ever."""
        try:
            return self.connection.forward(parcel, packet_id, dup=dup)
        except LocalProtocolError as error:  # it would head the queue at each connect
            note(f"a message to {self.client}", error)
            return False

    def _may_go_on(self) -> bool:
        return not self.is_over and not self.is_on_hold

    async def _read(self, outgoing: SendWindow) -> None:
        try:
            await self._read_some(outgoing)
        except UnavailableError:  # nothing wakes this queue after a database outage
            await self.space.sleep(_AGAIN_S)
        finally:
            self._is_reading = False
        self.flow()

    async def _read_some(self, outgoing: SendWindow) -> None:
        after = outgoing.wanted_after
        if after is not None and not self.is_over:
            tail = outgoing.tail
            found = await self.space.queued_after(self.client, after)
            outgoing.load(found)
            if not found:
                outgoing.skip_to(tail)


class Observer(Protocol):
    """Callbacks for client events of a namespace."""

    def disconnected(self, attached: ConnectedSession, reason: CloseReason) -> None:
        """Handle the disconnection of a connected client."""
        ...

    def lost(self, client: str, epoch: int) -> None:
        """Handle a client that is disconnected because its worker ended without reporting it."""
        ...

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        """Publish a will.

        A late will is published after its connection ended, due to its delay or to a lost worker.
        """
        ...

    def overrun(self, client: str, limit: int) -> None:
        """Handle a dropped message of a client that is too slow or was disconnected for too long."""
        ...


class SessionNamespace(Protocol):
    """Namespace interface used by a session's connection and its queue."""

    name: str
    worker: str
    is_alone: bool
    rules: SpaceRules
    observer: Observer

    @property
    def live(self) -> Mapping[str, ConnectedSession]:
        """The clients that are connected to this worker."""
        ...

    @property
    def arrivals(self) -> int:
        """Number of connects since the process started."""
        ...

    def count_dropped(self, count: int) -> None:
        """Count messages dropped from full queues."""
        ...

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        ...

    def spawn(self, waiting: Awaitable[None]) -> None:
        """Run an awaitable to completion, independent of its caller; log its exceptions."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for the given number of seconds."""
        ...

    def parcel_of(self, message: BrokerMessage, *, retain: bool = False) -> EncodedMessage | None:
        """Return a message encoded for sending now, or None if it has expired."""
        ...

    async def record(self, client: str) -> SessionRecord | None:
        """Return the stored record of a session, or None."""
        ...

    async def queued_after(self, client: str, after: int) -> list[tuple[int, BrokerMessage]]:
        """Return the queued messages after a position, with their positions, oldest first."""
        ...

    def is_arriving(self, client: str) -> bool:
        """Return whether a connection is about to take over this session."""
        ...

    def settle_later(self, attached: ConnectedSession) -> None:
        """Record that a queue's cursor moved; it is written with the next commit or soon after."""
        ...

    def is_unsettled(self, attached: ConnectedSession) -> bool:
        """Return whether the session's cursor moved since it was last written."""
        ...

    def is_settled(self, attached: ConnectedSession) -> None:
        """Mark a connection as settled: its cursor is written."""
        ...

    def fenced(self, attached: ConnectedSession) -> None:
        """Handle a session taken over by another worker: no action of this connection counts anymore."""
        ...
