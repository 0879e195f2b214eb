"""The workers that share a database: this one's lease, the others' death, and what a dead one leaves behind.

A worker that was declared dead by another does nothing more: its next beat finds its row gone, and all its connections
end. What it had is free then: whoever sees a session of a worker that is not there frees it.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Protocol

from birthmark.broker import store
from birthmark.broker.rules.leases import BEAT_S, LEASE_S, HeartbeatTracker, Lease, TakeoverSchedule
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.store import Changes, Database

log = logging.getLogger(__name__)

_PAGE = 1000


class WorkerLostError(UnavailableError):
    """The worker's lease expired."""

    code = "broker.worker_lost"
    cause = "The worker {worker} did not renew its lease in time, and other workers took over its sessions."
    fix = "Connect again: another worker has the session. On a stopped machine, restart `birthmark serve`."
    for_a_person = "the machine has to be checked"
    worker: str


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """The passing of time."""

    def call_later(self, delay_s: float, act: Callable[[], object]) -> Timer:
        """Call `act` after so many seconds."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Return after so many seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        ...


class LoopTimers:
    """The event loop's own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call_later(self, delay_s: float, act: Callable[[], object]) -> Timer:
        return self._loop.call_later(delay_s, act)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def monotonic(self) -> float:
        return self._loop.time()


class Workers:
    """See the module.

    `gone` is called when this worker was declared dead, `free` frees what a dead one had, `catch_up` reads what others
    committed where they could not reach this worker.
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
    ) -> None:
        self._database = database
        self._worker = worker
        self._timers = timers
        self._gone = gone
        self._free = free
        self._catch_up = catch_up
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

    @property
    def is_fresh(self) -> bool:
        """Nobody can have taken anything of this worker's: it may act on what it remembers."""
        return not self._is_over and self._lease.is_fresh(self._timers.monotonic())

    async def join(self) -> None:
        """Say that this worker lives."""
        began = self._timers.monotonic()
        await self._database.commit(Changes().run(store.JOIN, id=self._worker, beat=0, missed=0, heard=0))
        self._lease.renewed(began)
        self.is_joined = True

    async def fresh(self) -> None:
        """Return when this worker knows that it lives. Raise `WorkerLostError` when it was declared dead."""
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
        """Say again that this worker lives: nothing that is read keeps the next time waiting."""
        if self._is_over:
            return
        began = self._timers.monotonic()
        seen = {"key_id": self._worker, "key_beat": self._beat, "key_missed": self._missed}
        try:
            is_told = await self._database.beside(store.BEAT, beat=self._beat + 1, **seen)
        except BirthmarkError as error:
            log.warning("worker.no_beat", extra={"worker": self._worker, "code": error.code})
            return
        if not is_told:
            row = await self._database.one(store.WORKER, id=self._worker)
            if row is None or row["beat"] not in {self._beat, self._beat + 1}:
                self._lost()
                return
            self._beat = row["beat"]  # the answer to the last one was lost, or:
            if row["missed"] != self._missed:
                await self._hear_what_was_missed(row["missed"])
            return
        self._lives_on(began)

    def _lives_on(self, began: float) -> None:
        self._beat += 1
        self._lease.renewed(began)
        self._wake()

    async def _hear_what_was_missed(self, mark: int) -> None:
        """Learn what others could not tell; only then this worker lives on."""
        await self._catch_up()
        self._missed = mark
        began = self._timers.monotonic()
        seen = {"key_id": self._worker, "key_beat": self._beat, "key_missed": mark}
        if await self._database.beside(store.HEARD_AND_LIVES, heard=mark, beat=self._beat + 1, **seen):
            self._lives_on(began)
            return
        await self._database.beside(store.HEARD, heard=mark, key_id=self._worker)  # it was marked again meanwhile
        await self.beat()

    async def look(self) -> None:
        """Declare dead whose lease has run out, and free what dead ones had."""
        if self._is_over:
            return
        rows = await self._database.all(store.WORKERS, limit=_PAGE)
        beats = {row["id"]: row["beat"] for row in rows if row["id"] != self._worker}
        for worker in self._beats.saw(beats, self._timers.monotonic()):
            await self._declare_dead(worker, beats[worker])
        alive = {self._worker, *beats}
        now = self._timers.monotonic()
        self._left.note(self._alive - alive, now)
        self._alive, self._looked_at = alive, now
        rank = sum(other < self._worker for other in beats)
        owners = {row["owner"] for row in await self._database.all(store.OWNERS, limit=_PAGE)}
        self._left.note(owners - alive, now)
        for owner in self._left.due(rank, self._timers.monotonic()):
            # Also where others took its sessions over: it may have held more.
            if await self._database.one(store.WORKER, id=owner) is None:  # nor came meanwhile
                await self._free(owner)
            self._left.forget(owner)

    async def is_gone(self, worker: str) -> bool:
        """Say whether a worker is dead: declared so by anybody, or now by us because its lease has run out."""
        row = await self._database.one(store.WORKER, id=worker)
        if row is None:
            return True
        if not self._beats.is_over(worker, row["beat"], self._timers.monotonic()):
            return False
        return await self._declare_dead(worker, row["beat"])

    async def lives(self, worker: str) -> bool:
        """Say whether a worker is not dead, as it was a moment ago."""
        if worker in self._alive and self._timers.monotonic() - self._looked_at < LEASE_S:
            return True
        return not await self.is_gone(worker)

    async def mark(self, worker: str) -> int | None:
        """Have a worker read what others committed before it beats again; None when it is dead."""
        while (row := await self._database.one(store.WORKER, id=worker)) is not None:
            mark: int = row["missed"] + 1
            if await self._database.beside(store.MARK, missed=mark, key_id=worker, key_missed=row["missed"]):
                return mark  # else another one marked it
        return None

    async def has_read(self, worker: str, mark: int) -> bool:
        """Say whether a worker has done so, or is dead."""
        row = await self._database.one(store.WORKER, id=worker)
        return row is None or row["heard"] >= mark

    async def others(self) -> list[str]:
        """Return the workers that nobody has declared dead, without this one."""
        rows = await self._database.all(store.WORKERS, limit=_PAGE)
        return [row["id"] for row in rows if row["id"] != self._worker]

    async def leave(self) -> None:
        """Say that this worker ends; what it had has been let go."""
        self._is_over = True
        await self._database.commit(Changes().run(store.LEAVE, id=self._worker))

    async def _declare_dead(self, worker: str, beat: int) -> bool:
        if not await self._database.beside(store.DECLARE_DEAD, id=worker, beat=beat):
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
    """Beat for ever."""
    while True:
        try:
            await workers.beat()
        except BirthmarkError as error:
            log.warning("worker.no_beat", extra={"code": error.code})
        await timers.sleep(BEAT_S)


async def keep_looking(workers: Workers, timers: Timers) -> None:
    """Look for ever for those that do not beat: in a task of its own, as it waits for reads."""
    while True:
        try:
            await workers.look()
        except BirthmarkError as error:
            log.warning("worker.no_look", extra={"code": error.code})
        await timers.sleep(BEAT_S)
