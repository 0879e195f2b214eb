"""Numbers that grow with the time, and that no other worker gives: microseconds since 1970, shifted by eight bits."""

from birthmark.store.database import SharedDatabase

_BITS = 8


class Numbers:
    """What this worker numbers; the lowest bits are its own number."""

    def __init__(self, sharing: SharedDatabase) -> None:
        self._sharing = sharing
        self.last = 0

    def start_after(self, number: int) -> None:
        """Go on after a number that is in use."""
        self.last = max(self.last, number)

    def next(self, now: int) -> int:
        """Return a number that is greater than all before; `now` is in microseconds since 1970."""
        self.last = (max((self.last >> _BITS) + 1, now) << _BITS) | self._sharing.number
        return self.last


def at(micros: int) -> int:
    """Return the least number of a time."""
    return micros << _BITS
