"""Chip intake records and trust."""

from dataclasses import dataclass, field
from datetime import datetime

from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class ChipIntake:
    """A chip to record: its certificate and issuers (leaf first), its board, and the operator."""

    board: str
    operator: str
    chain: tuple[Certificate, ...]
    root: str | None = None
    """Manufacturer's root that the chain was verified against; None if it was not verified."""


@dataclass(frozen=True, slots=True)
class BundlePosition:
    """A bundle and a line number in it: with board and operator, a chip's proof is bound to them."""

    bundle: str
    seq: int


@dataclass(frozen=True, slots=True)
class Intake:
    """Data of a bundle about a chip in addition to its certificate."""

    board: str
    operator: str
    station: str
    at: datetime
    place: BundlePosition
    checked_then: str | None
    """Root with which the station verified the chain."""
    checked_now: str | None = field(default=None)
    """Root with which the reader verified the chain."""
