"""Which keys and boards were seen, and where: 12 bytes a slot, so that a million chips fit beside everything else.

A mark is the first 64 bits of a SHA-256. Two that are alike by chance (once in 10^7 files of a million chips) make the
later one be refused, never believed.
"""

import hashlib
from array import array

_FIRST_SLOTS = 1024


class Marks:
    """An open-addressed table from marks to places (1 to 2**32 - 1)."""

    def __init__(self) -> None:
        self._count = 0
        self._keys, self._places = _tables(_FIRST_SLOTS)

    def add(self, kind: str, value: str, place: int) -> int | None:
        """Remember a value; return where it was seen before, which stays, or None."""
        slot = self._slot(_mark(kind, value))
        if self._places[slot]:
            return self._places[slot]
        self._keys[slot], self._places[slot] = _mark(kind, value), place
        self._count += 1
        if self._count * 3 > len(self._keys) * 2:
            self._grow()
        return None

    def place_of(self, kind: str, value: str) -> int | None:
        """Return where a value was seen."""
        return self._places[self._slot(_mark(kind, value))] or None

    def _slot(self, mark: int) -> int:
        """Return where the mark is, or the free slot where it would be."""
        mask = len(self._keys) - 1
        slot = mark & mask
        while self._places[slot] and self._keys[slot] != mark:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old = zip(self._keys, self._places, strict=True)
        self._keys, self._places = _tables(2 * len(self._keys))
        for mark, place in old:
            if place:
                slot = self._slot(mark)
                self._keys[slot], self._places[slot] = mark, place


def _tables(slots: int) -> tuple["array[int]", "array[int]"]:
    return array("Q", bytes(8 * slots)), array("I", bytes(4 * slots))


def _mark(kind: str, value: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{kind}\0{value}".encode()).digest()[:8])
