"""What outlives a connection on the sending side: messages in flight or waiting, and packet ids in use (section 4.4).

The next `MqttEngine` of this client id takes the same `SessionState` and sends its unacknowledged messages again.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError, QueueFullError

_LAST_ID = 0xFFFF
EACH_BYTES = 8 * 1024
"""How large the messages that wait may be, on average: all of them together are at most as many times that."""


class SessionState:
    """QoS 1 messages on their way out, in order, and the packet ids that are taken."""

    __slots__ = ("_in_flight", "_last_id", "_reserved", "_waiting", "_waiting_bytes", "max_queued", "window")

    def __init__(self, window: int = 100, max_queued: int = 1000) -> None:
        self.window = window
        self.max_queued = max_queued
        self._in_flight: dict[int, EncodedMessage] = {}
        self._waiting: dict[int, tuple[EncodedMessage, bool]] = {}  # and whether it was sent before
        self._reserved: dict[int, None] = {}  # an empty set is three times as large
        self._last_id = self._waiting_bytes = 0

    @property
    def in_flight(self) -> tuple[int, ...]:
        """The packet ids of messages sent and not acknowledged, oldest first."""
        return tuple(self._in_flight)

    @property
    def waiting(self) -> tuple[int, ...]:
        """The packet ids of messages that wait for room in the window."""
        return tuple(self._waiting)

    def reserve(self) -> int:
        """Take a free packet id, as for a SUBSCRIBE; `release` gives it back."""
        packet_id = self._next_id()
        self._reserved[packet_id] = None
        return packet_id

    def release(self, packet_id: int) -> None:
        """Give back what `reserve` took."""
        self._reserved.pop(packet_id, None)

    def add(self, parcel: EncodedMessage, *, may_fly: bool) -> tuple[int, bool]:
        """Take a QoS 1 message: return its packet id and True when it is in flight now, False when it waits.

        Raise `QueueFullError` when too many wait, by number or by size.
        """
        waiting = self._waiting
        if may_fly and not waiting and len(self._in_flight) < self.window:
            packet_id = self._next_id()
            self._in_flight[packet_id] = parcel
            return packet_id, True
        if waiting and (len(waiting) >= self.max_queued or self._waiting_bytes >= self.max_queued * EACH_BYTES):
            raise QueueFullError(f"{len(waiting)} messages wait already, {self._waiting_bytes} bytes")
        packet_id = self._next_id()
        waiting[packet_id] = parcel, False
        self._waiting_bytes += parcel.size
        return packet_id, False

    def acknowledge(self, packet_ids: Iterable[int]) -> bool:
        """Forget delivered messages; say whether there may be room for one that waits.

        An id that is unknown answers a message of an earlier life, or one that the caller keeps itself.
        """
        in_flight = self._in_flight
        for packet_id in packet_ids:
            in_flight.pop(packet_id, None)
        return bool(self._waiting)

    def forget(self, packet_id: int) -> None:
        """Take back a message that was added: it does not go out."""
        if self._in_flight.pop(packet_id, None) is None and packet_id in self._waiting:
            self._no_longer_waits(packet_id)

    def advance(self) -> Iterator[tuple[int, EncodedMessage, bool]]:
        """Yield the waiting messages for which there is room now: packet id, message, whether it was sent before."""
        while self._waiting and len(self._in_flight) < self.window:
            packet_id = next(iter(self._waiting))
            parcel, is_again = self._no_longer_waits(packet_id)
            self._in_flight[packet_id] = parcel
            yield packet_id, parcel, is_again

    def resend(self, *, as_duplicates: bool) -> Iterator[tuple[int, EncodedMessage, bool]]:
        """Yield the messages in flight again as `advance` does, oldest first ([MQTT-4.4.0-1], [MQTT-4.6.0-1]).

        As many as the window has room for, which may be smaller now; the others wait in front of those that wait.
        """
        before = self._in_flight
        self._in_flight = dict(islice(before.items(), self.window))
        if len(self._in_flight) < len(before):
            late = {number: (parcel, as_duplicates) for number, parcel in islice(before.items(), self.window, None)}
            self._waiting = late | self._waiting
            self._waiting_bytes += sum(parcel.size for parcel, _ in late.values())
        for packet_id, parcel in tuple(self._in_flight.items()):
            yield packet_id, parcel, as_duplicates

    def clear(self) -> None:
        """Forget everything: the session has ended."""
        self._in_flight.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._reserved.clear()

    def _no_longer_waits(self, packet_id: int) -> tuple[EncodedMessage, bool]:
        found = self._waiting.pop(packet_id)
        self._waiting_bytes -= found[0].size
        return found

    def _next_id(self) -> int:
        packet_id = self._last_id % _LAST_ID + 1
        if packet_id in self._in_flight or packet_id in self._waiting or packet_id in self._reserved:  # hardly ever
            packet_id = self._free_after(packet_id)
        self._last_id = packet_id
        return packet_id

    def _free_after(self, packet_id: int) -> int:
        for _ in range(_LAST_ID):
            packet_id = packet_id % _LAST_ID + 1
            if not any(packet_id in taken for taken in (self._in_flight, self._waiting, self._reserved)):
                return packet_id
        raise LocalProtocolError("all 65535 packet ids are in use")
