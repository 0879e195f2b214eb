"""Machine readings of all workers as rows, evaluated by one worker.

Timestamps are from the database's clock, as the machines' clocks may be wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from birthmark.alerts import store
from birthmark.alerts.model import MachineReading
from birthmark.clock_and_entropy import Clock
from birthmark.store import Changes, Database, from_micros, to_micros

_KEPT = timedelta(days=1)
"""Retention of the row of a worker that no longer reports."""
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Machines:
    """Machine readings of all workers."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def note(self, reading: MachineReading) -> MachineReading:
        """Write a worker's reading with the database's time and the worker's clock offset from it."""
        began = self.clock.now()
        now, is_another = await self._time()
        ended = self.clock.now()
        off = _clock_offset_us(began, ended, now) if is_another else None
        reading = replace(reading, at=now, clock_off_us=off)
        changes = Changes().run(store.PUT_LOOKED, **store.LOOKED.row(reading))
        await self.database.commit(changes.run(store.FORGET_LOOKED, before=to_micros(now - _KEPT)))
        return reading

    async def alive(self, within: timedelta) -> Sequence[MachineReading]:
        """Return the readings of the workers that reported within this time, by name."""
        now, _ = await self._time()
        rows = await self.database.all(store.LOOKED_SINCE, since=to_micros(now - within))
        return sorted(map(store.LOOKED.of, rows), key=lambda one: one.worker)

    async def _time(self) -> tuple[datetime, bool]:
        row = await self.database.one(store.TIME, now=self.clock.micros())
        assert row is not None  # noqa: S101 - reads no table
        return from_micros(row["now"]), bool(row["is_another"])


def _clock_offset_us(began: datetime, ended: datetime, now: datetime) -> int:
    """Return the minimum clock offset between requester and responder; the response is between both timestamps."""
    ahead, behind = began - now, now - ended
    if ahead > timedelta():
        return ahead // _MICROSECOND
    return -(behind // _MICROSECOND) if behind > timedelta() else 0
