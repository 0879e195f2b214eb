"""What each worker sees of its own machine, as rows: one worker judges for all.

Rows are of the database's clock, as the machines' may be wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from birthmark.alerts import store
from birthmark.alerts.model import MachineReading
from birthmark.clock import Clock
from birthmark.store import Changes, Database, from_micros, to_micros

_KEPT = timedelta(days=1)
"""How long the row of a worker stays that looks no more."""
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Machines:
    """The rows of all workers."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def note(self, seen: MachineReading) -> MachineReading:
        """Write what a worker saw, with when that is by the database's clock, and how far its own is from it."""
        began = self.clock.now()
        now, is_another = await self._time()
        ended = self.clock.now()
        off = _off(began, ended, now) if is_another else None
        seen = replace(seen, at=now, clock_off_us=off)
        changes = Changes().run(store.PUT_LOOKED, **store.LOOKED.row(seen))
        await self.database.commit(changes.run(store.FORGET_LOOKED, before=to_micros(now - _KEPT)))
        return seen

    async def alive(self, within: timedelta) -> Sequence[MachineReading]:
        """Return what those workers saw that looked within this time, by name."""
        now, _ = await self._time()
        rows = await self.database.all(store.LOOKED_SINCE, since=to_micros(now - within))
        return sorted(map(store.LOOKED.of, rows), key=lambda one: one.worker)

    async def _time(self) -> tuple[datetime, bool]:
        row = await self.database.one(store.TIME, now=self.clock.micros())
        assert row is not None  # noqa: S101 - it asks no table
        return from_micros(row["now"]), bool(row["is_another"])


def _off(began: datetime, ended: datetime, now: datetime) -> int:
    """Return how far the clock of the question is ahead of that of the answer, at least: it was between two moments."""
    ahead, behind = began - now, now - ended
    if ahead > timedelta():
        return ahead // _MICROSECOND
    return -(behind // _MICROSECOND) if behind > timedelta() else 0
