"""Send window of a stored session's queue: messages sent, acknowledged and read next.

Numbers are positions in the queue. Newly committed messages are passed in memory. A slow connection gets the rest from
the database when it has space again, so its memory use is bounded whatever the queue length.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from birthmark.broker.model import BrokerMessage

MAX_READY = 256
MAX_READY_BYTES = 256 * 1024
MAX_PACKET_ID = 0xFFFF


def packet_id_of(number: int) -> int:
    """Return the packet ID of a position; it is the same for every retransmission ([MQTT-4.4.0-1])."""
    return (number - 1) % MAX_PACKET_ID + 1


class SendWindow:
    """Send window of a queue with its positions.

    Everything up to `cursor` is settled, everything up to `sent` is in flight, and `tail` is the last in the queue.
    """

    __slots__ = ("_bytes", "_in_flight", "_ready", "_ready_upto", "cursor", "resent_upto", "sent", "tail", "window")

    def __init__(self, cursor: int, tail: int, window: int, resent_upto: int = 0) -> None:
        self.cursor = self.sent = cursor
        self.tail = tail
        self.window = window
        self.resent_upto = resent_upto  # sent by an earlier connection
        self._in_flight: dict[int, int] = {}  # packet id -> number, in sending order
        self._ready: deque[tuple[int, BrokerMessage]] = deque()
        self._ready_upto = cursor
        self._bytes = 0

    @property
    def room(self) -> int:
        """Remaining capacity for messages in flight."""
        return self.window - len(self._in_flight)

    @property
    def depth(self) -> int:
        """Number of queued messages, sent or not."""
        return self.tail - self.cursor

    def appended(self, first: int, messages: Sequence[BrokerMessage]) -> None:
        """Record messages that were committed at the positions from `first`."""
        self.tail = max(self.tail, first + len(messages) - 1)
        if first == self._ready_upto + 1:
            self.load(enumerate(messages, first))

    def load(self, queued: Iterable[tuple[int, BrokerMessage]]) -> None:
        """Add the next messages of the queue with their positions, up to the memory limit."""
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
        """Position after which messages must be read from the database.

        It is None if none are needed or the window is full.
        """
        if self._ready or self._ready_upto >= self.tail or self.room <= 0:
            return None
        return self._ready_upto

    def skip_to(self, upto: int) -> None:
        """Skip up to a position: its messages were deleted or have expired."""
        if upto > self._ready_upto and not self._ready:
            self._ready_upto = upto
            if not self._in_flight:
                self.cursor = self.sent = max(self.sent, upto)

    def next(self) -> tuple[int, BrokerMessage] | None:
        """Return the next message to send, and count it as in flight.

        Return None if there is none or the window is full.
        """
        if not self._ready or len(self._in_flight) >= self.window:
            return None
        number, message = self._ready[0]
        packet_id = packet_id_of(number)
        if packet_id in self._in_flight:  # sent 65,535 messages ago, and no other's answer settles it
            return None
        self._ready.popleft()
        self._bytes -= message.size
        self.sent = number
        self._in_flight[packet_id] = number
        return number, message

    def settle(self, packet_ids: Iterable[int]) -> bool:
        """Mark messages as delivered or discarded; return whether any belonged to the queue."""
        before = len(self._in_flight)
        for packet_id in packet_ids:
            self._in_flight.pop(packet_id, None)
        if len(self._in_flight) == before:
            return False
        self.cursor = next(iter(self._in_flight.values())) - 1 if self._in_flight else self.sent
        return True
