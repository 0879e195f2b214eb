"""What a measure is to who runs it."""

from typing import ClassVar, NamedTuple, Protocol

from rig import Rig


class Sample(NamedTuple):
    """One round: what it cost us and what it cost the peer, in the measure's unit."""

    ours: float
    peer: float


class Measure(Protocol):
    """One row of the table. A round does both sides after one another, so that noise hits both."""

    name: ClassVar[str]
    title: ClassVar[str]
    peer: ClassVar[str]
    unit: ClassVar[str]
    gate: ClassVar[float]
    """What the ratio of ours to the peer's must be at most."""
    aim: ClassVar[float]

    def __init__(self, rig: Rig) -> None:
        """Make everything ready that is not measured."""
        ...

    def round(self) -> Sample:
        """Measure both sides once, and check the counts."""
        ...
