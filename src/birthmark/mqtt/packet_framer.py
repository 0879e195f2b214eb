"""Split a byte stream into MQTT control packets (section 2.2).

Accepts any chunking; a burst in one chunk is split without repeated copies, and a large packet in tiny chunks is
collected in linear time.
"""

import struct
from collections.abc import Sequence

from birthmark.mqtt.errors import RemoteProtocolError
from birthmark.mqtt.negotiated_limits_and_aliases import Terms
from birthmark.mqtt.packets import Publish
from birthmark.mqtt.publish_burst_decoder import MAX_BURST, read_burst
from birthmark.mqtt.reason_codes import ReasonCode

_PUBACK, _PUBACK_HEAD, _ACK = b"\x40\2", 0x4002, struct.Struct(">HH")


class Framer:
    """Holds at most one partial packet, if the caller draws frames until None after each `receive_data`."""

    __slots__ = ("_at", "_need", "_tail", "chunk", "max_packet_bytes")

    def __init__(self, max_packet_bytes: int) -> None:
        self.max_packet_bytes = max_packet_bytes
        self.chunk = b""
        """Received bytes not yet read."""
        self._at = 0  # where the next packet begins in the chunk
        self._tail = bytearray()  # data after the chunk
        self._need = 2  # chunk and tail bytes needed before another check is useful

    @property
    def buffered(self) -> int:
        """Number of received bytes not yet returned."""
        return len(self.chunk) - self._at + len(self._tail)

    def receive_data(self, data: bytes) -> None:
        if self.chunk:
            self._tail += data
        else:
            self.chunk = data

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return the first byte and the body, or None. Raise `RemoteProtocolError` for an excessive length."""
        chunk, at = self.chunk, self._at
        if len(chunk) - at < self._need:
            if len(chunk) - at + len(self._tail) < self._need:
                return None
            chunk = self.chunk = chunk[at:] + bytes(self._tail)
            at = self._at = 0
            self._tail.clear()
        end = self._measure(chunk, at)
        if end is None:
            # The partial packet moves to the front so that the next chunk does not drag this one along.
            if at:
                self.chunk, self._at = chunk[at:], 0
            return self.next_frame() if self._tail and self.buffered >= self._need else None
        length_at = at + 1
        while chunk[length_at] & 0x80:
            length_at += 1
        self._need = 2
        self._move_to(end)
        return chunk[at], chunk[length_at + 1 : end]

    def next_acks(self) -> Sequence[int]:
        """Return the packet ids of the next plain PUBACKs; empty if another packet is next."""
        chunk, at = self.chunk, self._at
        if not chunk.startswith(_PUBACK, at):
            return ()
        if len(chunk) - at == 4 and (only := chunk[at + 2] << 8 | chunk[at + 3]):  # as most subscribers send
            self._need = 2
            self._move_to(at + 4)
            return (only,)
        packet_ids: list[int] = []
        whole = min(len(chunk) - at & ~3, 4 * MAX_BURST)
        for head, packet_id in _ACK.iter_unpack(chunk[at : at + whole]):
            if head != _PUBACK_HEAD or not packet_id:
                break
            packet_ids.append(packet_id)
        if packet_ids:
            self._need = 2
            self._move_to(at + 4 * len(packet_ids))
        return packet_ids

    def next_burst(self, max_topic_bytes: int, terms: Terms | None) -> tuple[list[Publish], list[int]]:
        """Return the next plain PUBLISH packets and their packet ids; empty if another packet is next."""
        burst, packet_ids, at = read_burst(self.chunk, self._at, self.max_packet_bytes, max_topic_bytes, terms)
        if burst:
            self._need = 2
            self._move_to(at)
        return burst, packet_ids

    def _move_to(self, offset: int) -> None:
        if offset < len(self.chunk):
            self._at = offset
            return
        self.chunk, self._at = b"", 0
        if self._tail:  # becomes the chunk at once: `receive_data` requires an empty chunk to imply an empty tail
            self.chunk = bytes(self._tail)
            self._tail.clear()

    def _measure(self, chunk: bytes, offset: int) -> int | None:
        """Return the end of the packet at `offset`; if the chunk is too short, set the number of required bytes."""
        value = shift = 0
        for position in range(offset + 1, min(offset + 5, len(chunk))):
            byte = chunk[position]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                end = position + 1 + value
                if end - offset > self.max_packet_bytes:
                    told = f"a packet of {end - offset} bytes is larger than {self.max_packet_bytes} bytes"
                    raise RemoteProtocolError(told, reason_code=ReasonCode.PACKET_TOO_LARGE)
                self._need = end - offset
                return end if end <= len(chunk) else None
            shift += 7
        if len(chunk) - offset >= 5:
            raise RemoteProtocolError("the remaining length is longer than four bytes")
        self._need = len(chunk) - offset + 1
        return None
