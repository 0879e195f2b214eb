"""Workers that share a database: own lease, failure detection, and takeover of dead workers' sessions.

A worker that another worker declared dead stops: its next heartbeat finds its row missing, and all its connections end.
Its sessions are free then: a worker that finds a session of a missing worker frees it.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from birthmark.broker import store
from birthmark.broker.rules.leases import BEAT_S, CUT_OFF_S, LEASE_S, HeartbeatTracker, Lease, TakeoverSchedule
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.store import Changes, Database

log = logging.getLogger(__name__)

_PAGE = 1000


class WorkerLostError(UnavailableError):
    """The worker's lease expired."""

    code = "broker.worker_lost"
    cause = "The worker {worker} did not renew its lease in time, and other workers took over its sessions."
    fix = (
        "Connect again: another worker now has the session. If the worker's machine stopped, restart `birthmark "
        "serve` there."
    )
    for_a_person = "check the machine"
    worker: str


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Timers: delayed calls and sleep."""

    def call_later(self, delay_s: float, act: Callable[[], object]) -> Timer:
        """Call `act` after a delay in seconds."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Sleep for the given number of seconds."""
        ...

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        ...


class LoopTimers:
    """Timers of the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call_later(self, delay_s: float, act: Callable[[], object]) -> Timer:
        return self._loop.call_later(delay_s, act)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def monotonic(self) -> float:
        return self._loop.time()


class Workers:
    """Membership and leases of the workers that share a database.

    `gone` is called when this worker was declared dead, or is cut off from the database. `is_any_fresh` asks other
    workers over the bus whether one of them has a valid lease. `free` frees a dead worker's resources. `catch_up` reads
    commits of other workers whose events did not reach this worker.
    """

    def __init__(
        self,
        database: Database,
        worker: str,
        timers: Timers,
        *,
        gone: Callable[[], object],
        free: Callable[[str], Awaitable[None]],
        catch_up: Callable[[], Awaitable[None]],
        is_any_fresh: Callable[[Collection[str]], Awaitable[bool]],
    ) -> None:
        self._database = database
        self._worker = worker
        self._timers = timers
        self._gone = gone
        self._free = free
        self._catch_up = catch_up
        self._is_any_fresh = is_any_fresh
        self._missed = 0
        self.is_joined = False
        self._alive: set[str] = set()
        self._left = TakeoverSchedule()
        self._looked_at = -math.inf
        self._beat = 0
        self._beats = HeartbeatTracker()
        self._lease = Lease(timers.monotonic())
        self._is_over = self.is_lost = False
        self._waiting: set[asyncio.Future[None]] = set()
        self._cut_off_at = math.inf
        """Since when only other workers have a valid lease."""

    @property
    def is_fresh(self) -> bool:
        """Whether this worker may use its cached state: no other worker can have taken over its sessions."""
        return not self._is_over and self._lease.is_fresh(self._timers.monotonic())

    def live(self) -> Collection[str]:
        """Return the workers that were live at a recent check, this one included; none if there was no such check."""
        return self._alive if self.is_fresh and self._timers.monotonic() - self._looked_at < LEASE_S else ()

    async def join(self) -> None:
        """Register this worker as live."""
        began = self._timers.monotonic()
        await self._database.commit(Changes().run(store.JOIN, id=self._worker, beat=0, missed=0, heard=0))
        self._lease.renewed(began)
        self.is_joined = True

    async def fresh(self) -> None:
        """Wait until this worker's lease is valid. Raise `WorkerLostError` if it was declared dead."""
        while not self.is_fresh:
            if self._is_over:
                raise WorkerLostError(worker=self._worker)
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)

    async def beat(self) -> None:
        """Write a heartbeat; no read delays the next one."""
        if self._is_over:
            return
        began = self._timers.monotonic()
        seen = {"key_id": self._worker, "key_beat": self._beat, "key_missed": self._missed}
        try:
            is_told = await self._database.write_outside_batch(store.BEAT, beat=self._beat + 1, **seen)
        except BirthmarkError as error:
            log.warning("worker.no_beat", extra={"worker": self._worker, "code": error.code})
            return
        if not is_told:
            row = await self._database.one(store.WORKER, id=self._worker)
            if row is None or row["beat"] not in {self._beat, self._beat + 1}:
                self._lost()
                return
            self._beat = row["beat"]  # the last answer was lost, or:
            if row["missed"] != self._missed:
                await self._hear_what_was_missed(row["missed"])
            return
        self._lives_on(began)

    def _lives_on(self, began: float) -> None:
        self._beat += 1
        self._cut_off_at = math.inf
        self._lease.renewed(began)
        self._wake()

    async def _hear_what_was_missed(self, mark: int) -> None:
        """Read missed commits, then renew the lease."""
        await self._catch_up()
        self._missed = mark
        began = self._timers.monotonic()
        seen = {"key_id": self._worker, "key_beat": self._beat, "key_missed": mark}
        if await self._database.write_outside_batch(store.HEARD_AND_LIVES, heard=mark, beat=self._beat + 1, **seen):
            self._lives_on(began)
            return
        await self._database.write_outside_batch(
            store.HEARD, heard=mark, key_id=self._worker
        )  # marked again in between
        await self.beat()

    async def look(self) -> None:
        """Declare workers with an expired lease dead, and free the resources of dead workers."""
        if self._is_over:
            return
        try:
            rows = await self._database.all(store.WORKERS, limit=_PAGE)
        except BirthmarkError:
            self._beats.restart()  # others may have been unable to write for as long
            raise
        beats = {row["id"]: row["beat"] for row in rows if row["id"] != self._worker}
        for worker in self._beats.record_heartbeats(beats, self._timers.monotonic()):
            await self._declare_dead(worker, beats[worker])
        alive = {self._worker, *beats}
        now = self._timers.monotonic()
        self._left.note(self._alive - alive, now)
        self._alive, self._looked_at = alive, now
        rank = sum(other < self._worker for other in beats)
        owners = {row["owner"] for row in await self._database.all(store.OWNERS, limit=_PAGE)}
        self._left.note(owners - alive, now)
        for owner in self._left.due(rank, self._timers.monotonic()):
            # Check even if others took over its sessions: it may have owned more.
            if await self._database.one(store.WORKER, id=owner) is None:  # did not restart
                await self._free(owner)
            self._left.forget(owner)

    async def end_if_cut_off(self) -> None:
        """End this worker if only it has lost the database, so that its devices connect to another one.

        If no worker has the database, every connection stays: no packet is processed without a valid lease.
        """
        if self._is_over or self.is_fresh or not await self._is_any_fresh(self._alive - {self._worker}):
            self._cut_off_at = math.inf
            return
        now = self._timers.monotonic()
        self._cut_off_at = min(self._cut_off_at, now)
        if now - self._cut_off_at >= CUT_OFF_S and not self.is_fresh:
            log.error("worker.cut_off", extra={"worker": self._worker})
            self._lost()

    async def is_gone(self, worker: str) -> bool:
        """Return whether a worker is dead: declared so earlier, or now because its lease has expired."""
        row = await self._database.one(store.WORKER, id=worker)
        if row is None:
            return True
        if not self._beats.is_over(worker, row["beat"], self._timers.monotonic()):
            return False
        return await self._declare_dead(worker, row["beat"])

    async def is_alive(self, worker: str) -> bool:
        """Return whether a worker was live at its last check."""
        if worker in self._alive and self._timers.monotonic() - self._looked_at < LEASE_S:
            return True
        return not await self.is_gone(worker)

    async def mark(self, worker: str) -> int | None:
        """Require a worker to read missed commits before its next heartbeat.

        Return the mark, or None if it is dead.
        """
        while (row := await self._database.one(store.WORKER, id=worker)) is not None:
            mark: int = row["missed"] + 1
            if await self._database.write_outside_batch(
                store.MARK, missed=mark, key_id=worker, key_missed=row["missed"]
            ):
                return mark  # otherwise another did
        return None

    async def has_read(self, worker: str, mark: int) -> bool:
        """Return whether a worker has read up to a mark, or is dead."""
        row = await self._database.one(store.WORKER, id=worker)
        return row is None or row["heard"] >= mark

    async def others(self) -> list[str]:
        """Return the workers that are not declared dead, without this one."""
        rows = await self._database.all(store.WORKERS, limit=_PAGE)
        return [row["id"] for row in rows if row["id"] != self._worker]

    async def leave(self) -> None:
        """Deregister this worker after it has released its resources."""
        self._is_over = True
        await self._database.commit(Changes().run(store.LEAVE, id=self._worker))

    async def _declare_dead(self, worker: str, beat: int) -> bool:
        if not await self._database.write_outside_batch(store.DECLARE_DEAD, id=worker, beat=beat):
            return False
        log.warning("worker.dead", extra={"worker": worker})
        return True

    def _lost(self) -> None:
        self._is_over = self.is_lost = True
        self._wake()
        self._gone()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for one in waiting:
            if not one.done():
                one.set_result(None)


async def keep_beating(workers: Workers, timers: Timers) -> None:
    """Renew the worker's lease by heartbeats; never return."""
    while True:
        try:
            await workers.beat()
        except BirthmarkError as error:
            log.warning("worker.no_beat", extra={"code": error.code})
        await timers.sleep(BEAT_S)


async def run_failure_detector_loop(workers: Workers, timers: Timers) -> None:
    """Run the failure detector; it has its own task, because it waits for reads."""
    while True:
        try:
            await workers.look()
        except BirthmarkError as error:
            log.warning("worker.no_look", extra={"code": error.code})
        await timers.sleep(BEAT_S)


async def run_cut_off_loop(workers: Workers, timers: Timers) -> None:
    """End this worker when only it has lost the database; it has its own task, because it waits for the bus."""
    while True:
        await workers.end_if_cut_off()
        await timers.sleep(LEASE_S)
