"""Split a byte stream into protocol headers and frames (part 2 sections 2.2 and 2.3).

Accepts any chunking. A frame is refused by its first four bytes, before the rest of it is kept.
"""

import struct
from typing import Final, NamedTuple

from birthmark.amqp.errors import AmqpCondition, AmqpError

AMQP_HEADER: Final = b"AMQP\x00\x01\x00\x00"
TLS_HEADER: Final = b"AMQP\x02\x01\x00\x00"
SASL_HEADER: Final = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME: Final = b"\x00\x00\x00\x08\x02\x00\x00\x00"

AMQP_FRAME: Final = 0
SASL_FRAME: Final = 1
MIN_MAX_FRAME_BYTES: Final = 512
"""Maximum frame size until OPEN, and the smallest that an end may announce."""

_HEADER_BYTES: Final = 8
_unpack_header = struct.Struct(">IBBH").unpack_from
_pack_header = struct.Struct(">IBBH").pack


class Frame(NamedTuple):
    """Type, channel and body of one frame; an empty body only shows that the peer is alive."""

    type: int
    channel: int
    body: bytes


class AmqpFramer:
    """Holds at most one partial frame, if the caller draws frames until None after each `receive_data`."""

    __slots__ = ("_buffer", "_offset", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = MIN_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._offset = 0

    @property
    def buffered(self) -> int:
        """Number of received bytes not yet returned."""
        return len(self._buffer) - self._offset

    def receive_data(self, data: bytes) -> None:
        if self._offset:
            del self._buffer[: self._offset]
            self._offset = 0
        self._buffer += data

    def next_header(self) -> bytes | None:
        """Return the next protocol header, or None. Raise `AmqpError` once a byte differs from `AMQP`."""
        start = self._buffer[self._offset : self._offset + _HEADER_BYTES]
        if start[:4] != AMQP_HEADER[: len(start[:4])]:
            raise AmqpError(AmqpCondition.FRAMING_ERROR, "the connection does not begin with a protocol header")
        if len(start) < _HEADER_BYTES:
            return None
        self._offset += _HEADER_BYTES
        return bytes(start)

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None. Raise `AmqpError` for an invalid size or data offset."""
        buffer, offset = self._buffer, self._offset
        available = len(buffer) - offset
        if available < 4:
            return None
        size = int.from_bytes(buffer[offset : offset + 4])
        if not _HEADER_BYTES <= size <= self.max_frame_bytes:
            told = f"a frame has {size} bytes; the limit is {self.max_frame_bytes} bytes"
            raise AmqpError(AmqpCondition.FRAMING_ERROR, told)
        if available < size:
            return None
        _, doff, kind, channel = _unpack_header(buffer, offset)
        if doff < 2 or doff * 4 > size:
            raise AmqpError(AmqpCondition.FRAMING_ERROR, f"a frame of {size} bytes has data offset {doff}")
        self._offset = offset + size
        return Frame(kind, channel, bytes(buffer[offset + doff * 4 : offset + size]))


def encode_frame(channel: int, body: bytes, kind: int = AMQP_FRAME) -> bytes:
    """Return a frame without an extended header."""
    return _pack_header(len(body) + _HEADER_BYTES, 2, kind, channel) + body
