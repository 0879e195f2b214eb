"""Unique numbers that grow with time across workers: microseconds since 1970, shifted by eight bits."""

from birthmark.store.database import SharedDatabase

_BITS = 8


class Numbers:
    """Number generator of this worker; the lowest bits are the worker's number."""

    def __init__(self, sharing: SharedDatabase) -> None:
        self._sharing = sharing
        self.last = 0

    def start_after(self, number: int) -> None:
        """Continue after a number that is in use."""
        self.last = max(self.last, number)

    def next(self, now: int) -> int:
        """Return a number greater than all earlier ones; `now` is in microseconds since 1970."""
        self.last = (max((self.last >> _BITS) + 1, now) << _BITS) | self._sharing.number
        return self.last


def at(micros: int) -> int:
    """Return the lowest ID of a time."""
    return micros << _BITS
