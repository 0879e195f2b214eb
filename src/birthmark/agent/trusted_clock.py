"""What time it is, on a device whose clock may be years off (ADR 26).

A `Timekeeper` is a clock: the machine's, put right by what was learnt from servers that proved who they are. It never
goes back behind the latest time on which the machine's clock and a server agreed (`floor`), kept over restarts: neither
one server's word moves that, nor a certificate's dates. What it does, it says: `why` is for `status` and the log.

Pure but for the clock it is given. Not here: who is asked (timely), where the floor is kept (state).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from birthmark.clock import Clock, to_micros

TOLERANCE = timedelta(minutes=5)
BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that shows less can be right: this program is younger."""
_JUMP_S = 60.0
_ALONE = timedelta(days=1)
_FORGET = "birthmark agent forget-time"


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

    def micros(self) -> int:
        return to_micros(self.now())

    def monotonic(self) -> float:
        return self.machine.monotonic()

    @property
    def is_off(self) -> bool:
        """Say whether the machine's clock is not believed."""
        return bool(self.offset)

    def may_be(self, stated: datetime, valid_from: datetime, valid_until: datetime) -> bool:
        """Say whether a server may be believed that it is `stated`: its chain is valid then, and it is no past."""
        return stated.tzinfo is not None and max(self.floor, valid_from) <= stated <= valid_until

    def counts_alone(self, stated: datetime, valid_from: datetime, valid_until: datetime) -> bool:
        """Say whether one server's word is enough: it is near, or this clock cannot be right.

        Where the chain is valid by this clock too, one of the two is wrong and nobody can say which: then another
        server has to agree (`timely`).
        """
        machine = self.machine.now()
        can_be_right = max(self.floor, valid_from) <= machine + TOLERANCE and machine <= valid_until
        return abs(stated - machine) <= _ALONE or not can_be_right

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
        """Remember that it cannot be earlier than this, as far as the machine's clock says so too."""
        self.floor = max(self.floor, min(moment, self.machine.now()))
        self._keep_above_floor()

    def suppose(self, moment: datetime) -> None:
        """Take it to be that late, as a certificate says, until a server has told the time. Nothing is kept of it."""
        behind = moment - (self.machine.now() + self.offset)
        if behind > timedelta(0) and not self.is_confirmed:
            self.offset += behind
            self.why = f"the clock shows {self.machine.now():%Y-%m-%d}, and a certificate began {moment:%Y-%m-%d}"
            self._note()

    def forget(self) -> None:
        """Start anew with the machine's clock."""
        self.floor, self.offset, self.why, self.is_confirmed = BUILT, timedelta(0), "", False
        self._note()
        self._keep_above_floor()

    def _keep_above_floor(self) -> None:
        behind = self.floor - (self.machine.now() + self.offset)
        if behind > timedelta(0):
            self.offset += behind
            shown, floor = f"{self.machine.now():%Y-%m-%d}", f"{self.floor:%Y-%m-%d}"
            self.why = f"the clock shows {shown}, and it was later already: {floor}; if it was not: `{_FORGET}`"
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
