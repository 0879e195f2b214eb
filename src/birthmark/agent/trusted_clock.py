"""Current time on a device whose clock may be years off (ADR 26).

A `Timekeeper` is a clock: the machine's, corrected by authenticated servers. It never returns a time before the latest
one on which the machine's clock and a server agreed (`floor`). That floor persists over restarts. Neither a single
server nor a certificate's dates move it. `why` explains corrections for `status` and the log.

Pure except for the injected clock. Not here: the choice of servers (`clock_sync`), the storage of the floor (`state`).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from birthmark.clock_and_entropy import Clock, to_micros

TOLERANCE = timedelta(minutes=5)
BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""Earliest plausible time: this program was built later."""
_JUMP_S = 60.0
_ALONE = timedelta(days=1)
_FORGET = "birthmark agent forget-time"


@dataclass(slots=True)
class Timekeeper:
    """The agent's clock: the machine's clock, corrected by authenticated servers."""

    machine: Clock
    floor: datetime = BUILT
    offset: timedelta = timedelta(0)
    why: str = ""
    is_confirmed: bool = False
    """Whether a server has confirmed the time in this run."""
    _wall: datetime = field(init=False)
    _monotonic: float = field(init=False)

    def __post_init__(self) -> None:
        self._note()
        self._keep_above_floor()

    def now(self) -> datetime:
        """Return the time. An offset ends when the machine's clock is corrected."""
        if self.offset:
            self._detect_clock_jump()
        self._keep_above_floor()
        return self.machine.now() + self.offset

    def micros(self) -> int:
        return to_micros(self.now())

    def monotonic(self) -> float:
        return self.machine.monotonic()

    @property
    def is_off(self) -> bool:
        """Return whether the machine's clock is not trusted."""
        return bool(self.offset)

    def may_be(self, stated: datetime, valid_from: datetime, valid_until: datetime) -> bool:
        """Return whether a server's `stated` time is plausible: within its chain's validity, not before the floor."""
        return stated.tzinfo is not None and max(self.floor, valid_from) <= stated <= valid_until

    def counts_alone(self, stated: datetime, valid_from: datetime, valid_until: datetime) -> bool:
        """Return whether a single server suffices: its time is near, or this clock cannot be right.

        If the chain is also valid by this clock, either may be wrong; another server must then agree (`timely`).
        """
        machine = self.machine.now()
        can_be_right = max(self.floor, valid_from) <= machine + TOLERANCE and machine <= valid_until
        return abs(stated - machine) <= _ALONE or not can_be_right

    def learn(self, stated: datetime, source: str) -> bool:
        """Apply the time of an authenticated server. Return whether it changed."""
        before, self.is_confirmed = self.offset, True
        apart = stated - self.machine.now()
        self.offset = timedelta(0) if abs(apart) <= TOLERANCE else apart
        self.why = f"the clock is {_far(-apart)} according to {source}" if self.offset else ""
        self._note()
        self.raise_floor(stated - TOLERANCE)
        return abs(self.offset - before) > TOLERANCE

    def raise_floor(self, moment: datetime) -> None:
        """Raise the earliest possible time, as far as the machine's clock agrees."""
        self.floor = max(self.floor, min(moment, self.machine.now()))
        self._keep_above_floor()

    def suppose(self, moment: datetime) -> None:
        """Assume a certificate's time as the minimum until a server confirms the time. Not persisted."""
        behind = moment - (self.machine.now() + self.offset)
        if behind > timedelta(0) and not self.is_confirmed:
            self.offset += behind
            self.why = (
                f"the clock shows {self.machine.now():%Y-%m-%d}, but a certificate is valid only from {moment:%Y-%m-%d}"
            )
            self._note()

    def forget(self) -> None:
        """Reset to the machine's clock."""
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

    def _detect_clock_jump(self) -> None:
        """Detect clock jumps.

        Wall and monotonic time advance together unless the clock is set or the machine sleeps.
        """
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
