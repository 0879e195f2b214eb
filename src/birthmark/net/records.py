"""A stream of TLS, cut after so many records.

OpenSSL works through every record that has no application data, such as a KeyUpdate, before a read returns; there may
be hundreds in what came at once, and each costs as much as a message.
"""

_HEADER = 5  # RFC 8446 section 5.1: type, version, and in the last two bytes the length of what follows


class Records:
    """What came and was not handed to TLS yet."""

    __slots__ = ("_missing", "taken", "waiting")

    def __init__(self) -> None:
        self.waiting = b""
        """What was not taken."""
        self._missing = 0  # of the record that was handed on last
        self.taken = 0
        """How many records were begun in what `take` returned last."""

    def add(self, data: bytes) -> None:
        self.waiting = self.waiting + data if self.waiting else data

    def take(self, count: int) -> bytes:
        """Return what there is of at most `count` further records; nothing while a header is not whole."""
        rest, at, size, begun = self.waiting, self._missing, len(self.waiting), 0
        if not at and size > _HEADER and _HEADER + (rest[3] << 8 | rest[4]) == size:  # one, as most are
            self.waiting, self.taken = b"", 1
            return rest
        while at < size and begun < count and at + _HEADER <= size:
            at += _HEADER + (rest[at + 3] << 8 | rest[at + 4])
            begun += 1
        self.taken = begun
        if at >= size:
            self.waiting, self._missing = b"", at - size
            return rest
        self.waiting, self._missing = rest[at:], 0
        return rest[:at]
