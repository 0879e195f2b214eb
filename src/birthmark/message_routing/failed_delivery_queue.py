"""Delivery queue in the database: failed deliveries by partition, each with a limited number of retries.

If a partition's receiver is unavailable or refuses, all its deliveries wait; other partitions are not affected. A
delivery that fails for too long, or permanently, becomes a dead letter, and its error action runs. The numbers of
queued deliveries and dead letters per partition are limited.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.message_routing import store
from birthmark.message_routing.delivery_model import Delivery, QueuedDelivery, Sink, is_final
from birthmark.store import Changes, Database, to_micros
from birthmark.supervised_tasks import Leads, always, cancel_and_wait, note

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Maximum queued bytes per partition; further messages are dropped and counted."""
MAX_DEAD, MAX_DEAD_BYTES = 1_000, 64 * 1024 * 1024
"""Maximum dead letters per partition, by number and size; the newest are kept."""
TRIES = 9
"""Number of attempts, over four minutes; the pauses double from 1 s."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=2)
_LOOK_S = 1.0
_MAX_LANES = 64
_MAX_LANES_OF_ONE = _MAX_LANES // 2
"""Maximum partitions of one owner in progress: slow receivers of one owner leave capacity for others."""
_MAX_PROBLEM = 500
_FORGOTTEN_AT_ONCE = 500
_COUNT_AGAIN_S = 60.0


@dataclass(slots=True)
class DeliveryPartition:
    """Counters of a partition: deliveries including dead letters, and bytes of each."""

    count: int = 0
    dead: int = 0
    size: int = 0
    """Bytes of queued deliveries."""
    dead_size: int = 0


Failed = Callable[[Delivery, BirthmarkError], Awaitable[None]]
"""Called when a delivery becomes a dead letter, before that is written."""


class Queue:
    """Deliveries of all partitions. `leads` returns whether this worker delivers them."""

    def __init__(self, database: Database, clock: Clock, leads: Leads = always) -> None:
        self._database = database
        self._clock = clock
        self._served: dict[str, tuple[Sink, Failed]] = {}
        self._lanes: dict[str, DeliveryPartition] = {}
        self._counted_at: float | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._paused: dict[str, datetime] = {}
        self._looked_at = ""
        """Lane after which the next scan starts, so that waiting partitions do not delay others."""
        self._woken = asyncio.Event()
        self.leads = leads
        self.carried: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.aside: Counter[str] = Counter()
        """Counters by partition since this process started: delivered, dropped for a full partition, dead-lettered."""

    def serve(self, sinks: Mapping[str, Sink], failed: Failed) -> None:
        """Deliver messages of more kinds; `failed` is called for those that become dead letters."""
        self._served |= {kind: (sink, failed) for kind, sink in sinks.items()}

    def lane(self, name: str) -> DeliveryPartition:
        """Return the counters of a partition."""
        return self._lanes.setdefault(name, DeliveryPartition())

    # ---- in

    def add(self, changes: Changes, id_: str, delivery: Delivery, problem: BirthmarkError | None = None) -> bool:
        """Queue a delivery with this commit; return False if its partition is full.

        `problem` is the error of a first attempt. A permanent failure becomes a dead letter. Call `wake` after the
        commit.
        """
        lane, now = self.lane(delivery.lane), self._clock.now()
        size = delivery.size
        if lane.count - lane.dead >= MAX_WAITING or lane.size + size > MAX_WAITING_BYTES:
            self.dropped[delivery.lane] += 1
            return False
        is_over = problem is not None and is_final(problem)
        tries = 0 if problem is None else 1
        why = "" if problem is None else _reason(problem)
        due = now if problem is None else now + _FIRST_PAUSE
        kept_one = QueuedDelivery(
            *(id_, delivery.lane, delivery.kind, delivery.address, delivery.body, delivery.origin),
            created_at=now,
            tries=tries,
            due_at=due,
            dead_at=now if is_over else None,
            problem=why,
        )
        changes.run(store.ADD, **store.WAITING.row(kept_one))
        lane.count += 1
        if is_over:
            lane.dead += 1
            lane.dead_size += size
            self.aside[delivery.lane] += 1
        else:
            lane.size += size
        return True

    def wake(self) -> None:
        """Check for due deliveries at once."""
        self._woken.set()

    # ---- user operations

    async def counts(self, rule: str = "") -> Mapping[str, DeliveryPartition]:
        """Return the counters of each partition, of one rule or of all."""
        rows = await self._database.read_in_background(
            store.COUNTS, **(store.of_rule(rule) if rule else store.ALL_RULES)
        )
        return {
            row["lane"]: DeliveryPartition(row["count"], row["dead"], row["bytes"], row["dead_bytes"]) for row in rows
        }

    async def dead(self, rule: str, after: str, limit: int) -> Sequence[QueuedDelivery]:
        """Return the dead letters of a rule, oldest first."""
        rows = await self._database.all(store.DEAD_OF, after=after, limit=limit, **store.of_rule(rule))
        return [store.WAITING.of(row) for row in rows]

    def retry_changes(self, rule: str) -> Changes:
        """Return changes that retry all dead letters of a rule, and skip the pause of those waiting."""
        self._paused = {lane: until for lane, until in self._paused.items() if not lane.startswith(f"{rule}/")}
        return Changes().run(store.REVIVE, due_at=self._clock.micros(), **store.of_rule(rule))

    def deletion_changes(self, rule: str) -> Changes:
        """Return changes that delete all deliveries of a rule from the queue."""
        self._forget_counts()
        return Changes().run(store.DELETE_OF, **store.of_rule(rule))

    def _forget_counts(self) -> None:
        self._counted_at = None

    # ---- out

    async def keep_running(self) -> None:
        """Deliver due messages until the server stops."""
        try:
            while True:
                self._woken.clear()
                if await self.leads():
                    await self._count()
                    await self._forget_oldest()
                    await self._look()
                else:
                    running, self._running = self._running, {}
                    await cancel_and_wait(*running.values())
                    self._forget_counts()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._woken.wait()
        finally:
            running, self._running = self._running, {}
            await cancel_and_wait(*running.values())

    async def _count(self) -> None:
        """Update the partition counters; deletions by other workers are seen within a minute."""
        now = self._clock.monotonic()
        if self._counted_at is None or now - self._counted_at >= _COUNT_AGAIN_S:
            self._counted_at = now
            self._lanes = dict(await self.counts())

    async def _look(self) -> None:
        now = self._clock.now()
        self._running = {name: task for name, task in self._running.items() if not task.done()}
        rows = await self._database.all(store.DUE_LANES, now=to_micros(now), after=self._looked_at)
        for row in rows:
            name = row["lane"]
            if len(self._running) >= _MAX_LANES:
                return
            self._looked_at = name
            if name not in self._running and self._paused.get(name, now) <= now and self._has_room(name):
                task = asyncio.get_running_loop().create_task(self._run(name))
                self._running[name] = task
        if len(rows) < store.LANES:
            self._looked_at = ""

    def _has_room(self, name: str) -> bool:
        own = owner_of(name)
        return sum(owner_of(one) == own for one in self._running) < _MAX_LANES_OF_ONE

    async def _run(self, name: str) -> None:
        """Deliver due messages of a partition until none is left, or its receiver fails."""
        try:
            while await self._portion(name):
                pass
        except ChangedMeanwhileError:
            self.wake()  # some were removed: check again
        except Exception as error:  # noqa: BLE001 - any error: other partitions continue, and this one is retried
            note(f"deliveries to {name}", error)
            self._paused[name] = self._clock.now() + _LONGEST_PAUSE

    async def _portion(self, name: str) -> bool:
        rows = await self._database.all(store.DUE, lane=name, now=self._clock.micros())
        if not rows:
            self._paused.pop(name, None)
            return False
        waiting = [store.WAITING.of(row) for row in rows]
        results = await self._deliver(waiting)
        changes, failures = Changes(), list[tuple[QueuedDelivery, BirthmarkError]]()
        for one, problem in zip(waiting, results, strict=True):
            if problem is None:
                changes.run(store.DELETE, id=one.id)
                self.carried[name] += 1
            else:
                failures.append((one, problem))
        lane = self.lane(name)
        lane.count -= len(waiting) - len(failures)
        lane.size -= sum(one.letter.size for one in waiting) - sum(one.letter.size for one, _ in failures)
        for one, problem in failures:
            await self._fail(changes, one, problem)
        await self._database.commit(changes)
        # A final rejection does not mean that the receiver is down, so it must not delay other messages.
        again = [one for one, problem in failures if not is_final(problem)]
        if again:
            self._paused[name] = self._clock.now() + min(_pause(one.tries + 1) for one in again)
        return not again

    async def _deliver(self, waiting: Sequence[QueuedDelivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages by kind: after a rule change, a partition may contain those of the earlier action."""
        results: dict[str, BirthmarkError | None] = {}
        for kind in dict.fromkeys(one.kind for one in waiting):
            some = [one for one in waiting if one.kind == kind]
            sink, _ = self._served[kind]
            found = await sink.carry([one.letter for one in some])
            results |= {one.id: problem for one, problem in zip(some, found, strict=True)}
        return [results[one.id] for one in waiting]

    async def _fail(self, changes: Changes, delivery: QueuedDelivery, problem: BirthmarkError) -> None:
        now, tries = self._clock.now(), delivery.tries + 1
        why = _reason(problem)
        is_over = tries >= TRIES or is_final(problem)
        later = replace(
            delivery, tries=tries, due_at=now + _pause(tries), dead_at=now if is_over else None, problem=why
        )
        row = store.WAITING.row(later)
        told = {name: row[name] for name in ("tries", "due_at", "dead_at", "problem")}
        changes.run(store.LATER, key_id=delivery.id, key_tries=delivery.tries, **told)
        if why != delivery.problem or is_over:
            log.warning("routing.not_taken", extra={"lane": delivery.lane, "code": problem.code, "reason": why})
        if is_over:
            lane, size = self.lane(delivery.lane), delivery.letter.size
            lane.dead += 1
            lane.dead_size += size
            lane.size -= size
            self.aside[delivery.lane] += 1
            _, failed = self._served[delivery.kind]
            await failed(delivery.letter, problem)

    async def _forget_oldest(self) -> None:
        """Delete the oldest dead letters of each partition, as devices can cause any number of them."""
        for name in [name for name, lane in self._lanes.items() if _has_too_much_aside(lane)]:
            while _has_too_much_aside(lane := self.lane(name)):
                rows = await self._database.all(store.OLDEST_DEAD, lane=name, limit=_FORGOTTEN_AT_ONCE)
                changes = Changes()
                for row in rows:
                    if not _has_too_much_aside(lane):
                        break
                    changes.run(store.DELETE, id=row["id"])
                    lane.dead, lane.count = lane.dead - 1, lane.count - 1
                    lane.dead_size -= row["bytes"]
                if not rows:  # already done, or now being resent
                    lane.dead = lane.dead_size = 0
                    self._forget_counts()
                await self._database.commit(changes)


def _has_too_much_aside(lane: DeliveryPartition) -> bool:
    return lane.dead > MAX_DEAD or lane.dead_size > MAX_DEAD_BYTES


def _reason(problem: BirthmarkError) -> str:
    """Return the error as text that every database can store: a template may insert any characters."""
    return "".join(one if one.isprintable() else "?" for one in problem.explain_cause()[:_MAX_PROBLEM])


def owner_of(lane: str) -> str:
    """Return the owner of a partition: rules of an AWS account have no prefix, others use OWNER:RULE."""
    return lane.partition("/")[0].rpartition(":")[0]


def _pause(tries: int) -> timedelta:
    return min(_FIRST_PAUSE * (1 << min(tries - 1, 20)), _LONGEST_PAUSE)
