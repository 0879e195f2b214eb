"""Times as the database keeps them."""

from datetime import datetime

from birthmark.clock import EPOCH, MICROSECOND, to_micros

__all__ = ["from_micros", "to_micros"]


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime that `to_micros` came from."""
    return EPOCH + micros * MICROSECOND
