"""One client's session while a connection has it."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from birthmark.broker.model import RETAIN_AS_PUBLISHED, Message, Subscription, Will
from birthmark.broker.ports import Connection
from birthmark.broker.rules.outgoing import Outgoing, packet_id_of
from birthmark.errors import UnavailableError

if TYPE_CHECKING:
    from birthmark.broker.space import Space

_AGAIN_S = 1.0
MAX_HELD = 1000
MAX_HELD_BYTES = 8 * 1024 * 1024


class Attached:
    """See the module. `outgoing` is the queue of one that is stored; `epoch` and `owner` fence its writes.

    It begins on hold: nothing is delivered before CONNACK, nor while what the client may get is looked at again.
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
        space: "Space",
        client: str,
        connection: Connection,
        *,
        epoch: int,
        is_claimed: bool,
        is_stored: bool,
        session_present: bool,
        expiry_s: int,
        since: int,
        subscriptions: dict[str, Subscription],
        outgoing: Outgoing | None,
        will: Will | None,
        principal: str = "",
    ) -> None:
        self.space = space
        self.client = client
        self.connection = connection
        self.epoch = epoch
        self.is_claimed = is_claimed  # a row says that this worker has it
        self.has_row = is_claimed  # it has one at all; else its first subscription makes it
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
        self._held: deque[tuple[Message, int, int]] | None = None
        self._held_bytes = 0

    @property
    def fence(self) -> dict[str, Any]:
        """The parameters that every write of this session is conditional on."""
        owner = self.space.worker
        return {"key_space": self.space.name, "key_client": self.client, "key_epoch": self.epoch, "key_owner": owner}

    def deliver(self, message: Message, qos: int, options: int) -> None:
        """Send a message that is not queued, now or as soon as the hold is over."""
        if self.is_on_hold:
            self._hold(message, qos, options)
            return
        keeps_flag = bool(options & RETAIN_AS_PUBLISHED)
        if (parcel := self.space.messages.parcel_of(message, retain=message.retain and keeps_flag)) is not None:
            self.connection.deliver(parcel, qos)

    def _hold(self, message: Message, qos: int, options: int) -> None:
        if self._held is None:
            self._held = deque()
        if len(self._held) >= MAX_HELD or self._held_bytes >= MAX_HELD_BYTES:
            self.space.dropped += 1
            self.space.observer.overrun(self.client, MAX_HELD)
            return
        self._held.append((message, qos, options))
        self._held_bytes += message.size

    def hold(self) -> None:
        """Deliver nothing until `resume`."""
        self.is_on_hold = True

    def resume(self) -> None:
        """Deliver what was held back, and go on."""
        if self.is_over or not self.is_on_hold:
            return
        self.is_on_hold = False
        held, self._held, self._held_bytes = self._held, None, 0
        for message, qos, options in held or ():
            self.deliver(message, qos, options)
        self.flow()

    def acknowledged(self, packet_ids: Sequence[int]) -> None:
        """Note that messages of the queue are delivered; others are the connection's own business."""
        if self.outgoing is not None and self.outgoing.settled(packet_ids):
            self.space.settle_later(self)
            self.flow()

    def flow(self) -> None:
        """Send of the queue what is at hand, and read more where there is room for it."""
        outgoing = self.outgoing
        if outgoing is None or self.is_over or self.is_on_hold:
            return
        while (queued := outgoing.next()) is not None:
            number, message = queued
            packet_id = packet_id_of(number)
            parcel = self.space.messages.parcel_of(message, retain=message.retain)
            dup = number <= outgoing.resent_upto
            if parcel is None or not self.connection.forward(parcel, packet_id, dup=dup):
                outgoing.settled((packet_id,))
                self.space.settle_later(self)
            if not self._may_go_on():
                return
        if not self._is_reading and outgoing.wanted_after is not None:
            self._is_reading = True
            self.space.spawn(self._read(outgoing))

    def _may_go_on(self) -> bool:
        return not self.is_over and not self.is_on_hold

    async def _read(self, outgoing: Outgoing) -> None:
        try:
            await self._read_some(outgoing)
        except UnavailableError:  # a database that is away comes back, and nothing else would wake this queue
            await self.space.sleep(_AGAIN_S)
        finally:
            self._is_reading = False
        self.flow()

    async def _read_some(self, outgoing: Outgoing) -> None:
        after = outgoing.wanted_after
        if after is not None and not self.is_over:
            tail = outgoing.tail
            found = await self.space.queued_after(self.client, after)
            outgoing.loaded(found)
            if not found:
                outgoing.skipped(tail)
