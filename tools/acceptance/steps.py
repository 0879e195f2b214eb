"""Steps of a journey: each is a line of shell, says what it writes, and how that is taken back."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One line of shell, as a person would type it. It may name variables of the journey, as `$NAME`."""

    title: str
    command: str
    writes: str = ""
    """What it writes, and where; empty: it only looks, or writes files of this run alone."""
    undo: str = ""
    """The line that takes it back; empty where nothing is left of it."""
    stays: str = ""
    """What nothing takes back, said before it is done."""
    is_refused: bool = False
    """It has to be refused: that is what is looked at."""
    keeps: str = ""
    """The variable that its output becomes."""


@dataclass(frozen=True)
class Journey:
    """One way from a key to a message."""

    name: str
    title: str
    needs: str
    """What has to be there, for `--help`."""
    variables: Sequence[str] = ()
    """Environment variables without which it does not begin."""
    steps: Sequence[Step] = field(default=())
