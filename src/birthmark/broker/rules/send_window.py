"""A stored session's queue on its way to a connection: what is sent, what is acknowledged, what is read next.

Numbers are positions in the queue. What was just committed is handed over in memory; a connection that is slow gets
the rest from the database when there is room again, so that it costs a bounded amount of memory whatever waits for it.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from birthmark.broker.model import BrokerMessage

MAX_READY = 256
MAX_READY_BYTES = 256 * 1024
MAX_PACKET_ID = 0xFFFF


def packet_id_of(number: int) -> int:
    """Return the packet id of a position: the same whenever it is sent again ([MQTT-4.4.0-1])."""
    return (number - 1) % MAX_PACKET_ID + 1


class SendWindow:
    """Everything up to `cursor` is settled, everything up to `sent` is on its way, `tail` is the last in the queue."""

    __slots__ = ("_bytes", "_in_flight", "_ready", "_ready_upto", "cursor", "resent_upto", "sent", "tail", "window")

    def __init__(self, cursor: int, tail: int, window: int, resent_upto: int = 0) -> None:
        self.cursor = self.sent = cursor
        self.tail = tail
        self.window = window
        self.resent_upto = resent_upto  # an earlier connection was sent these
        self._in_flight: dict[int, int] = {}  # packet id -> number, in the order of sending
        self._ready: deque[tuple[int, BrokerMessage]] = deque()
        self._ready_upto = cursor
        self._bytes = 0

    @property
    def room(self) -> int:
        """How many more messages may be on their way."""
        return self.window - len(self._in_flight)

    @property
    def depth(self) -> int:
        """How many messages wait, sent or not."""
        return self.tail - self.cursor

    def appended(self, first: int, messages: Sequence[BrokerMessage]) -> None:
        """Note messages that were committed as `first` and following."""
        self.tail = max(self.tail, first + len(messages) - 1)
        if first == self._ready_upto + 1:
            self.loaded(enumerate(messages, first))

    def loaded(self, queued: Iterable[tuple[int, BrokerMessage]]) -> None:
        """Take the messages of the queue that come next, with their numbers, as far as they may be held in memory."""
        for number, message in queued:
            if number <= self._ready_upto:
                continue
            if len(self._ready) >= MAX_READY or self._bytes >= MAX_READY_BYTES:
                return
            self._ready.append((number, message))
            self._bytes += message.size
            self._ready_upto = number

    @property
    def wanted_after(self) -> int | None:
        """The number after which messages must be read from the database; None while there is no need or no room."""
        if self._ready or self._ready_upto >= self.tail or self.room <= 0:
            return None
        return self._ready_upto

    def skipped(self, upto: int) -> None:
        """Note that there is nothing to be read up to here: it was dropped or has expired."""
        if upto > self._ready_upto and not self._ready:
            self._ready_upto = upto
            if not self._in_flight:
                self.cursor = self.sent = max(self.sent, upto)

    def next(self) -> tuple[int, BrokerMessage] | None:
        """Return the next message to send, which is then on its way; None when there is none or no room."""
        if not self._ready or len(self._in_flight) >= self.window:
            return None
        number, message = self._ready[0]
        packet_id = packet_id_of(number)
        if packet_id in self._in_flight:  # one sent 65,535 messages ago, which is not settled by another's answer
            return None
        self._ready.popleft()
        self._bytes -= message.size
        self.sent = number
        self._in_flight[packet_id] = number
        return number, message

    def settled(self, packet_ids: Iterable[int]) -> bool:
        """Note that messages are delivered, or were not to be sent after all; say whether one of them was ours."""
        before = len(self._in_flight)
        for packet_id in packet_ids:
            self._in_flight.pop(packet_id, None)
        if len(self._in_flight) == before:
            return False
        self.cursor = next(iter(self._in_flight.values())) - 1 if self._in_flight else self.sent
        return True
