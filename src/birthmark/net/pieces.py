"""A client's WebSocket frames (RFC 6455 section 5.2) on their way to the library, which keeps a frame until its end.

A long frame of data goes on as several: its payload, byte for byte, with a head before each piece. So nobody has to be
told how much goes into a frame, and of one that never ends no more than a piece waits.
"""

PIECE_BYTES = 16 * 1024  # a multiple of the mask's four bytes, so that each piece begins where its mask does
_FIN, _CONTROL, _MASKED, _LENGTH = 0x80, 0x08, 0x80, 0x7F
_SHORT, _LONG = 126, 127


class Pieces:
    """The frames of one connection; those longer than `most` bytes stay as they are, for the library to refuse."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._head = bytearray()  # as far as it came
        self._now = 0  # bytes of payload until the next head
        self._later = 0  # bytes of this frame's payload after that
        self._fin = 0
        self._mask = b""

    def cut(self, data: bytes) -> bytes:
        """Return what came, with heads put into long frames."""
        out, at, end = bytearray(), 0, len(data)
        while at < end:
            if self._now:
                size = min(self._now, end - at)
                out += data[at : at + size]
                at += size
                self._now -= size
            else:
                self._head.append(data[at])
                at += 1
                self._begin(out)
            if not self._now and self._later:
                self._begin_piece(out, 0)
        return bytes(out)

    def _begin(self, out: bytearray) -> None:
        """Begin a frame when all of its head is there."""
        head = self._head
        if len(head) < 2:  # noqa: PLR2004 - what says how long the head is
            return
        length, masked = head[1] & _LENGTH, bool(head[1] & _MASKED)
        more = {_SHORT: 2, _LONG: 8}.get(length, 0)
        if len(head) < 2 + more + 4 * masked:
            return
        size = int.from_bytes(head[2 : 2 + more]) if more else length
        self._head = bytearray()
        if head[0] & _CONTROL or not masked or not PIECE_BYTES < size <= self._most:
            self._now = size
            out += head
            return
        self._fin, self._mask, self._later = head[0] & _FIN, bytes(head[-4:]), size
        self._begin_piece(out, head[0] & ~_FIN)

    def _begin_piece(self, out: bytearray, first: int) -> None:
        """Put in the head of a piece; the first has its frame's opcode, others go on with it, the last ends it."""
        self._now = min(self._later, PIECE_BYTES)
        self._later -= self._now
        fin = 0 if self._later else self._fin
        out += bytes((first | fin, _MASKED | _SHORT)) + self._now.to_bytes(2) + self._mask
