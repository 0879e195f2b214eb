"""What outlives a connection on the sending side: messages in flight or waiting, and packet ids in use (section 4.4).

The same `Session` is handed to the next `Engine` of this client id; its unacknowledged messages are then sent again.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from birthmark.mqtt.errors import LocalProtocolError, QueueFullError
from birthmark.mqtt.packets import Publish

EACH_BYTES = 8 * 1024
"""How large the messages that wait may be, on average: all of them together are at most as many times that."""


class Session:
    """QoS 1 messages on their way out, in order, and the packet ids that are taken."""

    __slots__ = ("_in_flight", "_last_id", "_reserved", "_waiting", "_waiting_bytes", "max_queued", "window")

    def __init__(self, window: int = 100, max_queued: int = 1000) -> None:
        self.window = window
        self.max_queued = max_queued
        self._in_flight: dict[int, Publish] = {}
        self._waiting: deque[Publish] | tuple[()] = ()  # an empty deque is the largest thing of an idle connection
        self._reserved: dict[int, None] = {}  # an empty set is three times as large
        self._last_id = self._waiting_bytes = 0

    @property
    def in_flight(self) -> tuple[Publish, ...]:
        """Messages sent and not acknowledged, oldest first."""
        return tuple(self._in_flight.values())

    @property
    def waiting(self) -> tuple[Publish, ...]:
        """Messages that wait for room in the window."""
        return tuple(self._waiting)

    @property
    def room(self) -> int:
        """How many more messages may fly before one has to wait."""
        return 0 if self._waiting else max(0, self.window - len(self._in_flight))

    def reserve(self) -> int:
        """Take a free packet id, as for a SUBSCRIBE; `release` gives it back."""
        packet_id = self._last_id % 0xFFFF + 1
        if packet_id not in self._reserved:  # nearly always
            self._last_id = packet_id
            self._reserved[packet_id] = None
            return packet_id
        for _ in range(0xFFFF):
            packet_id = packet_id % 0xFFFF + 1
            if packet_id not in self._reserved:
                self._last_id = packet_id
                self._reserved[packet_id] = None
                return packet_id
        raise LocalProtocolError("all 65535 packet ids are in use")

    def release(self, packet_id: int) -> None:
        self._reserved.pop(packet_id, None)

    def add(self, message: Publish, *, may_fly: bool) -> bool:
        """Put a QoS 1 message with its packet id in flight and say True, or queue it and say False."""
        if may_fly and len(self._in_flight) < self.window and not self._waiting:
            self._fly(message)
            return True
        if not isinstance(self._waiting, deque):
            self._waiting = deque()
        self._waiting.append(message)
        self._waiting_bytes += len(message.payload)
        return False

    def check_room(self) -> None:
        """Raise `QueueFullError` when one more message would be too many, by number or by size."""
        if self._waiting and (
            len(self._waiting) >= self.max_queued or self._waiting_bytes >= self.max_queued * EACH_BYTES
        ):
            raise QueueFullError(f"{len(self._waiting)} messages wait already, {self._waiting_bytes} bytes")

    def acknowledge(self, packet_id: int) -> bool:
        """Forget a delivered message; say whether it was one of ours."""
        if self._in_flight.pop(packet_id, None) is None:
            return False
        self._reserved.pop(packet_id, None)
        return True

    def forget(self, packet_id: int) -> None:
        """Take back the message that was added last: it does not go out."""
        if self._in_flight.pop(packet_id, None) is None and isinstance(self._waiting, deque):
            self._waiting_bytes -= len(self._waiting.pop().payload)
        self._reserved.pop(packet_id, None)

    def advance(self) -> Iterator[Publish]:
        """Yield the waiting messages for which there is room now."""
        while self._waiting and len(self._in_flight) < self.window:
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message.payload)
            self._fly(message)
            yield message

    def resend(self, *, as_duplicates: bool) -> Iterator[Publish]:
        """Yield the messages in flight again, oldest first ([MQTT-4.4.0-1], [MQTT-4.6.0-1]).

        As many as the window has room for, which may be smaller now; the others wait in front of those that wait.
        """
        again = [msgspec.structs.replace(message, dup=as_duplicates) for message in self._in_flight.values()]
        self._in_flight = {message.packet_id or 0: message for message in again[: self.window]}
        if late := again[self.window :]:
            self._waiting = deque([*late, *self._waiting])
            self._waiting_bytes += sum(len(message.payload) for message in late)
        yield from again[: self.window]

    def clear(self) -> None:
        """Forget everything: the session has ended."""
        self._in_flight.clear()
        self._waiting = ()
        self._waiting_bytes = 0
        self._reserved.clear()

    def _fly(self, message: Publish) -> None:
        if message.packet_id is None:
            raise LocalProtocolError("a message in flight needs a packet id")
        self._in_flight[message.packet_id] = message
