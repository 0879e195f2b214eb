"""What an intake is, and whose word counts."""

from dataclasses import dataclass, field
from datetime import datetime

from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class ChipIntake:
    """A chip that is to be taken in: its certificate and issuers (leaf first), the board it is on, who does it."""

    board: str
    operator: str
    chain: tuple[Certificate, ...]
    root: str | None = None
    """The maker's root that the chain was checked against; None when it was not."""


@dataclass(frozen=True, slots=True)
class BundlePosition:
    """Where in a bundle, and of which: what a chip's proof is bound to besides board and operator."""

    bundle: str
    seq: int


@dataclass(frozen=True, slots=True)
class BundleTrust:
    """Whose bundles and whose chips are believed. Without roots, chains are not checked."""

    stations: tuple[Certificate, ...]
    roots: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Intake:
    """What a bundle says of one chip beside its certificate."""

    board: str
    operator: str
    station: str
    at: datetime
    place: BundlePosition
    checked_then: str | None
    """The root that the station checked the chain against."""
    checked_now: str | None = field(default=None)
    """The root that the reader checked it against."""
