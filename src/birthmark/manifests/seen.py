"""Which of millions were there before, in little memory: 8 bytes each."""

import hashlib

_BUCKETS = 1 << 12
_MARK_BYTES = 8


class Seen:
    """Remembers a mark of 8 bytes for each. The key keeps whoever writes a list from choosing two of one mark.

    Of ten million, two share a mark with a chance of one in a thousand million; the later one is then refused.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._buckets = [bytearray() for _ in range(_BUCKETS)]

    def add(self, what: bytes) -> bool:
        """Remember it; say whether it is new."""
        digest = hashlib.blake2b(what, digest_size=_MARK_BYTES + 2, key=self._key).digest()
        mark, bucket = digest[:_MARK_BYTES], self._buckets[int.from_bytes(digest[_MARK_BYTES:]) % _BUCKETS]
        at = bucket.find(mark)
        while at % _MARK_BYTES and at >= 0:
            at = bucket.find(mark, at + 1)
        if at >= 0:
            return False
        bucket += mark
        return True
