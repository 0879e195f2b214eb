"""The queue on the database: letters that did not go out at once, lane by lane, each tried again for a while.

A lane whose receiver is away, or refuses, waits for all of its letters; the other lanes do not notice. What fails for
too long, or for good, is put aside, and whoever asked for that is told (an error action). A lane holds no more than so
many letters, and so many that were put aside.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.message_routing import store
from birthmark.message_routing.deliveries import Delivery, QueuedDelivery, Sink, is_final
from birthmark.store import Changes, Database, to_micros
from birthmark.supervised_tasks import Leads, always, ended, note

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""So much of one lane waits; what comes then is dropped, and counted."""
MAX_DEAD, MAX_DEAD_BYTES = 1_000, 64 * 1024 * 1024
"""So many of one lane are kept when they were put aside, and so much of them, the newest."""
TRIES = 9
"""Over four minutes; the pauses double from one second on."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=2)
_LOOK_S = 1.0
_MAX_LANES = 64
_MAX_LANES_OF_ONE = _MAX_LANES // 2
"""So many lanes of one owner are carried at once: its receivers that hang leave others room."""
_MAX_PROBLEM = 500
_FORGOTTEN_AT_ONCE = 500
_COUNT_AGAIN_S = 60.0


@dataclass(slots=True)
class DeliveryPartition:
    """What is known of a lane: how many letters it holds, with those put aside, and how many bytes of each kind."""

    count: int = 0
    dead: int = 0
    size: int = 0
    """Of what waits."""
    dead_size: int = 0


Failed = Callable[[Delivery, BirthmarkError], Awaitable[None]]
"""Called when a letter was put aside, before that is written."""


class Queue:
    """The letters of all lanes. `leads` says whether this worker carries them."""

    def __init__(self, database: Database, clock: Clock, leads: Leads = always) -> None:
        self._database = database
        self._clock = clock
        self._served: dict[str, tuple[Sink, Failed]] = {}
        self._lanes: dict[str, DeliveryPartition] = {}
        self._counted_at: float | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._paused: dict[str, datetime] = {}
        self._looked_at = ""
        """The lane after which the next look begins: those that wait for a receiver keep no other from its turn."""
        self._woken = asyncio.Event()
        self.leads = leads
        self.carried: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.aside: Counter[str] = Counter()
        """Letters by lane, since this process began: taken by their receiver, for which there was no room, put aside"""

    def serve(self, carriers: Mapping[str, Sink], failed: Failed) -> None:
        """Carry letters of more kinds; whoever sends them hears by `failed` of those that nobody took."""
        self._served |= {kind: (carrier, failed) for kind, carrier in carriers.items()}

    def lane(self, name: str) -> DeliveryPartition:
        """Return what is known of a lane."""
        return self._lanes.setdefault(name, DeliveryPartition())

    # ---- in

    def add(self, changes: Changes, id_: str, letter: Delivery, problem: BirthmarkError | None = None) -> bool:
        """Put a letter into the queue with this commit; say False where its lane is full. `problem`: it failed once.

        What will never be taken is put aside. Call `wake` after the commit.
        """
        lane, now = self.lane(letter.lane), self._clock.now()
        size = letter.size
        if lane.count - lane.dead >= MAX_WAITING or lane.size + size > MAX_WAITING_BYTES:
            self.dropped[letter.lane] += 1
            return False
        is_over = problem is not None and is_final(problem)
        tries = 0 if problem is None else 1
        why = "" if problem is None else _reason(problem)
        due = now if problem is None else now + _FIRST_PAUSE
        kept_one = QueuedDelivery(
            *(id_, letter.lane, letter.kind, letter.address, letter.body, letter.origin),
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
            self.aside[letter.lane] += 1
        else:
            lane.size += size
        return True

    def wake(self) -> None:
        """Look at once for what is due."""
        self._woken.set()

    # ---- what people do

    async def counts(self, rule: str = "") -> Mapping[str, DeliveryPartition]:
        """Return what each lane holds, of one rule or of all."""
        rows = await self._database.aside(store.COUNTS, **(store.of_rule(rule) if rule else store.ALL_RULES))
        return {
            row["lane"]: DeliveryPartition(row["count"], row["dead"], row["bytes"], row["dead_bytes"]) for row in rows
        }

    async def dead(self, rule: str, after: str, limit: int) -> Sequence[QueuedDelivery]:
        """Return what of a rule was put aside, oldest first."""
        rows = await self._database.all(store.DEAD_OF, after=after, limit=limit, **store.of_rule(rule))
        return [store.WAITING.of(row) for row in rows]

    def reviving(self, rule: str) -> Changes:
        """Return what lets everything of a rule that was put aside be tried anew, without a pause where it waits."""
        self._paused = {lane: until for lane, until in self._paused.items() if not lane.startswith(f"{rule}/")}
        return Changes().run(store.REVIVE, due_at=self._clock.micros(), **store.of_rule(rule))

    def forgetting(self, rule: str) -> Changes:
        """Return what takes everything of a rule out of the queue."""
        self._forget_counts()
        return Changes().run(store.DELETE_OF, **store.of_rule(rule))

    def _forget_counts(self) -> None:
        self._counted_at = None

    # ---- out

    async def keep_running(self) -> None:
        """Carry what is due, as long as the server runs."""
        try:
            while True:
                self._woken.clear()
                if await self.leads():
                    await self._count()
                    await self._forget_oldest()
                    await self._look()
                else:
                    running, self._running = self._running, {}
                    await ended(*running.values())
                    self._forget_counts()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._woken.wait()
        finally:
            running, self._running = self._running, {}
            await ended(*running.values())

    async def _count(self) -> None:
        """Know how much each lane holds: what others deleted meanwhile is seen a minute later."""
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
        """Carry what is due of a lane until nothing is, or its receiver takes nothing."""
        try:
            while await self._portion(name):
                pass
        except ChangedMeanwhileError:
            self.wake()  # somebody took one of them out: look again
        except Exception as error:  # noqa: BLE001 - whatever it is, the other lanes go on, and this one is tried again
            note(f"what {name} sends", error)
            self._paused[name] = self._clock.now() + _LONGEST_PAUSE

    async def _portion(self, name: str) -> bool:
        rows = await self._database.all(store.DUE, lane=name, now=self._clock.micros())
        if not rows:
            self._paused.pop(name, None)
            return False
        waiting = [store.WAITING.of(row) for row in rows]
        results = await self._carried(waiting)
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
        # What will never be taken says nothing of the receiver: who sends that keeps nobody else waiting.
        again = [one for one, problem in failures if not is_final(problem)]
        if again:
            self._paused[name] = self._clock.now() + min(_pause(one.tries + 1) for one in again)
        return not again

    async def _carried(self, waiting: Sequence[QueuedDelivery]) -> Sequence[BirthmarkError | None]:
        """Carry letters by their kinds: where a rule was changed, a lane has some of its earlier action."""
        results: dict[str, BirthmarkError | None] = {}
        for kind in dict.fromkeys(one.kind for one in waiting):
            some = [one for one in waiting if one.kind == kind]
            carrier, _ = self._served[kind]
            found = await carrier.carry([one.letter for one in some])
            results |= {one.id: problem for one, problem in zip(some, found, strict=True)}
        return [results[one.id] for one in waiting]

    async def _fail(self, changes: Changes, one: QueuedDelivery, problem: BirthmarkError) -> None:
        now, tries = self._clock.now(), one.tries + 1
        why = _reason(problem)
        is_over = tries >= TRIES or is_final(problem)
        later = replace(one, tries=tries, due_at=now + _pause(tries), dead_at=now if is_over else None, problem=why)
        row = store.WAITING.row(later)
        told = {name: row[name] for name in ("tries", "due_at", "dead_at", "problem")}
        changes.run(store.LATER, key_id=one.id, key_tries=one.tries, **told)
        if why != one.problem or is_over:
            log.warning("routing.not_taken", extra={"lane": one.lane, "code": problem.code, "reason": why})
        if is_over:
            lane, size = self.lane(one.lane), one.letter.size
            lane.dead += 1
            lane.dead_size += size
            lane.size -= size
            self.aside[one.lane] += 1
            _, failed = self._served[one.kind]
            await failed(one.letter, problem)

    async def _forget_oldest(self) -> None:
        """Keep of what was put aside in each lane the newest; what devices send may be put aside without end."""
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
                if not rows:  # somebody else did it, or lets them go out again
                    lane.dead = lane.dead_size = 0
                    self._forget_counts()
                await self._database.commit(changes)


def _has_too_much_aside(lane: DeliveryPartition) -> bool:
    return lane.dead > MAX_DEAD or lane.dead_size > MAX_DEAD_BYTES


def _reason(problem: BirthmarkError) -> str:
    """Return why a letter failed, as every database keeps it: a template may have made anything of a message."""
    return "".join(one if one.isprintable() else "?" for one in problem.explain_cause()[:_MAX_PROBLEM])


def owner_of(lane: str) -> str:
    """Return whose a lane is: rules of one account have none before their names, others say OWNER:RULE."""
    return lane.partition("/")[0].rpartition(":")[0]


def _pause(tries: int) -> timedelta:
    return min(_FIRST_PAUSE * (1 << min(tries - 1, 20)), _LONGEST_PAUSE)
