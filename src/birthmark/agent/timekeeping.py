"""What time it is, on a device whose clock may be years off (ADR 23).

A `Timekeeper` is a clock: the machine's, put right by what was learnt from servers that proved who they are. It never
goes back behind the latest time that was learnt that way (`floor`), which is kept over restarts. What it does, it says:
`why` is for `status` and the log.

Pure but for the clock it is given. Not here: who is asked (timely), where the floor is kept (state).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from birthmark.clock import Clock

TOLERANCE = timedelta(minutes=5)
BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that shows less can be right: this program is younger."""
_JUMP_S = 60.0


@dataclass(slots=True)
class Timekeeper:
    """The agent's clock."""

    machine: Clock
    floor: datetime = BUILT
    offset: timedelta = timedelta(0)
    why: str = ""
    is_confirmed: bool = False
    """Whether a server has told the time in this run."""
    _wall: datetime = field(init=False)
    _monotonic: float = field(init=False)

    def __post_init__(self) -> None:
        self._note()
        self._keep_above_floor()

    def now(self) -> datetime:
        """Return the time. An offset ends when somebody sets the machine's clock right."""
        if self.offset:
            self._look_for_a_jump()
        self._keep_above_floor()
        return self.machine.now() + self.offset

    def monotonic(self) -> float:
        return self.machine.monotonic()

    @property
    def is_off(self) -> bool:
        """Say whether the machine's clock is not believed."""
        return bool(self.offset)

    def may_be(self, stated: datetime, valid_from: datetime, valid_until: datetime) -> bool:
        """Say whether a server may be believed that it is `stated`: its chain is valid then, and it is no past."""
        return stated.tzinfo is not None and max(self.floor, valid_from) <= stated <= valid_until

    def learn(self, stated: datetime, source: str) -> bool:
        """Take over a time that an authenticated server stated. Say whether anything changed by it."""
        before, self.is_confirmed = self.offset, True
        apart = stated - self.machine.now()
        self.offset = timedelta(0) if abs(apart) <= TOLERANCE else apart
        self.why = f"the clock is {_far(-apart)}, as {source} says" if self.offset else ""
        self._note()
        self.raise_floor(stated - TOLERANCE)
        return abs(self.offset - before) > TOLERANCE

    def raise_floor(self, moment: datetime) -> None:
        """Remember that it cannot be earlier than this."""
        self.floor = max(self.floor, moment)
        self._keep_above_floor()

    def _keep_above_floor(self) -> None:
        behind = self.floor - (self.machine.now() + self.offset)
        if behind > timedelta(0):
            self.offset += behind
            self.why = f"the clock shows {self.machine.now():%Y-%m-%d}, and it was later already: {self.floor:%Y-%m-%d}"
            self._note()

    def _look_for_a_jump(self) -> None:
        """Wall and monotonic time go together, until somebody sets the clock, or the machine sleeps."""
        elapsed = timedelta(seconds=self.machine.monotonic() - self._monotonic)
        wall = self.machine.now()
        if abs(wall - self._wall - elapsed).total_seconds() > _JUMP_S:
            believed = self._wall + self.offset + elapsed
            if wall + TOLERANCE >= believed and abs(wall - believed) < abs(wall + self.offset - believed):
                self.offset, self.why = timedelta(0), ""
            self._note()

    def _note(self) -> None:
        self._wall, self._monotonic = self.machine.now(), self.machine.monotonic()


def _far(apart: timedelta) -> str:
    days, seconds = divmod(int(abs(apart).total_seconds()), 86_400)
    amount = f"{days} days" if days else f"{seconds} s"
    return f"{amount} {'ahead' if apart > timedelta(0) else 'behind'}"
