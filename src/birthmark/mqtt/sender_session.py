"""Sender session state: messages in flight or queued, and packet IDs in use (section 4.4).

The next `MqttEngine` of this client ID takes the same `SessionState` and resends its unacknowledged messages.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError, QueueFullError

_LAST_ID = 0xFFFF
EACH_BYTES = 8 * 1024
"""Maximum average size of queued messages.

Their total size is limited to the queue length times this value.
"""


class SessionState:
    """Outbound QoS 1 messages, in order, and the packet IDs in use."""

    __slots__ = ("_in_flight", "_last_id", "_reserved", "_waiting", "_waiting_bytes", "max_queued", "window")

    def __init__(self, window: int = 100, max_queued: int = 1000) -> None:
        self.window = window
        self.max_queued = max_queued
        self._in_flight: dict[int, EncodedMessage] = {}
        self._waiting: dict[int, tuple[EncodedMessage, bool]] = {}  # with a flag: sent before
        self._reserved: dict[int, None] = {}  # an empty set takes three times more
        self._last_id = self._waiting_bytes = 0

    @property
    def in_flight(self) -> tuple[int, ...]:
        """The packet ids of messages sent and not acknowledged, oldest first."""
        return tuple(self._in_flight)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Packet IDs of messages that wait for space in the in-flight window."""
        return tuple(self._waiting)

    def reserve(self) -> int:
        """Reserve a free packet ID, for example for a SUBSCRIBE. Free it with `release`."""
        packet_id = self._next_id()
        self._reserved[packet_id] = None
        return packet_id

    def release(self, packet_id: int) -> None:
        """Release a packet ID reserved by `reserve`."""
        self._reserved.pop(packet_id, None)

    def add(self, parcel: EncodedMessage, *, may_fly: bool) -> tuple[int, bool]:
        """Add a QoS 1 message; return its packet ID and True if it is in flight, False if it is queued.

        Raise `QueueFullError` if the queue exceeds its limit of messages or bytes.
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
        """Remove delivered messages; return whether a queued message may now fit into the window.

        An unknown packet ID belongs to a message of an earlier session, or to one that the caller stores itself.
        """
        in_flight = self._in_flight
        for packet_id in packet_ids:
            in_flight.pop(packet_id, None)
        return bool(self._waiting)

    def forget(self, packet_id: int) -> None:
        """Remove an added message so that it is not sent."""
        if self._in_flight.pop(packet_id, None) is None and packet_id in self._waiting:
            self._no_longer_waits(packet_id)

    def advance(self) -> Iterator[tuple[int, EncodedMessage, bool]]:
        """Yield the queued messages that fit into the window: packet ID, message, whether it was sent before."""
        while self._waiting and len(self._in_flight) < self.window:
            packet_id = next(iter(self._waiting))
            parcel, is_again = self._no_longer_waits(packet_id)
            self._in_flight[packet_id] = parcel
            yield packet_id, parcel, is_again

    def resend(self, *, as_duplicates: bool) -> Iterator[tuple[int, EncodedMessage, bool]]:
        """Yield the in-flight messages again, as `advance` does, oldest first ([MQTT-4.4.0-1], [MQTT-4.6.0-1]).

        Only as many as fit into the window, which may be smaller now; the others go to the front of the queue.
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
        """Remove all messages and packet IDs: the session has ended."""
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
