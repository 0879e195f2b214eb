"""What the clients of simulated workers write down, for the checker of histories (`history`)."""

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from simulation.virtual import World
from support.kills.history import Operation, Outcome, Seen


@dataclass(eq=False)
class Doing:
    """Something that was asked for, and may have no answer yet: until then nobody can tell whether it happened."""

    book: "Book"
    device: str
    value: Any
    began: float
    ended: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    version: int | None = None

    @property
    def is_over(self) -> bool:
        return self.ended < math.inf

    def end(self, outcome: Outcome = Outcome.OK, version: int | None = None) -> None:
        """Write down how it ended."""
        self.ended, self.outcome, self.version = self.book.now, outcome, version

    @property
    def operation(self) -> Operation:
        return Operation(self.device, self.value, self.began, self.ended, self.outcome, self.version)


class Book:
    """Everything that was asked for and seen, by its kind."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._done: defaultdict[str, list[Doing]] = defaultdict(list)
        self._seen: defaultdict[str, list[Seen]] = defaultdict(list)

    @property
    def now(self) -> float:
        """The time; each look is a little later, so that what comes after is after."""
        self._world.clock.move(timedelta(microseconds=1))
        return self._world.clock.monotonic()

    def begun(self, kind: str, device: str, value: Any) -> Doing:
        """Write down that something was asked for."""
        self._done[kind].append(doing := Doing(self, device, value, self.now))
        return doing

    def saw(self, kind: str, device: str, value: Any) -> None:
        """Write down what reached somebody."""
        self._seen[kind].append(Seen(device, value, self.now))

    def doings(self, kind: str) -> list[Doing]:
        return self._done[kind]

    def operations(self, kind: str) -> list[Operation]:
        return [doing.operation for doing in self._done[kind]]

    def seen(self, kind: str) -> list[Seen]:
        return self._seen[kind]

    def values(self, kind: str, outcome: Outcome = Outcome.OK) -> list[Any]:
        """Return the values of what ended so."""
        return [doing.value for doing in self._done[kind] if doing.outcome is outcome]
