"""The broker of this worker: its spaces, what is due, what has to be written."""

import asyncio
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from birthmark.broker import store
from birthmark.broker.batched_deletes import drop_expired_retained, drop_unused
from birthmark.broker.bus_requests import (
    AppendReply,
    AppendTo,
    AskClient,
    ClientThere,
    ConnectedRequest,
    ConnectedThere,
    DeliverTo,
    EndClient,
    LastSeenRequest,
    SeenThere,
    SubscriptionsChanged,
    Yield,
)
from birthmark.broker.connected_session import ConnectedSession, Observer, SessionNamespace
from birthmark.broker.in_flight import UNWRITTEN_BYTES, InFlightBudget
from birthmark.broker.legacy_upgrade import take_over_earlier
from birthmark.broker.model import SessionRecord, decode_messages
from birthmark.broker.namespace import Condition, Namespace, record_of
from birthmark.broker.namespace_context import WorkerForwarder
from birthmark.broker.ports import PublishListener, Watch
from birthmark.broker.rules.leases import LEASE_S
from birthmark.broker.rules.quotas import SpaceRules
from birthmark.broker.session_queue_writer import SessionQueueWriter
from birthmark.broker.worker_leases import LoopTimers, Timer, Timers, Workers, keep_beating, keep_looking
from birthmark.bus import Bus
from birthmark.bus.ports import BusRequest, EmptyReply, NoAnswerError, NobodyThereError, R
from birthmark.clock import Clock, ClockStability
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.time_ids import at
from birthmark.supervised_tasks import ended, kept, told

log = logging.getLogger(__name__)

SETTLE_S = 0.1
_LOOK_S = 60.0
STOP_S = 10.0  # then what is not done is found by the next start, as after a crash
_PAGE = 500
_FREED = 64
"""Sessions of a dead worker that are freed at once, beside devices that come back."""
_LOOK_AGAIN_S = 0.05
_UNUSED_AFTER_S = 60.0
_UNUSED_AFTER = int(_UNUSED_AFTER_S * 1_000_000)


async def _nothing_else(_worker: str) -> None: ...


class Broker:
    """See the module. With a `bus` other workers use this database too."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        worker: str,
        bus: Bus | None = None,
        timers: Timers | None = None,
        *,
        watch: Watch | None = None,
        counting: Callable[[], Mapping[str, int]] = dict,
        freeing: Callable[[str], Awaitable[None]] = _nothing_else,
    ) -> None:
        """`counting` says what else this worker counts, for those who look at rates.

        `freeing` is called with a dead worker before its sessions are free: it frees what else that held.
        """
        self.database = database
        self.worker = worker
        self.is_alone = bus is None
        self._bus = bus
        self._timers = timers or LoopTimers()
        self.unsettled: set[ConnectedSession] = set()
        self.watch = watch
        self.counting = counting
        self._clock = clock
        self._steadiness = ClockStability(clock)
        self._loop = asyncio.get_running_loop()
        self._spaces: dict[str, Namespace] = {}
        self._shapes: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])  # sessions, retained messages
        self._tasks: set[asyncio.Task[None]] = set()
        self.across = WorkerForwarder(self._deliver_at, self.spawn)
        self.underway = self.across.underway
        self.unwritten = InFlightBudget(UNWRITTEN_BYTES, overhead_bytes=0)
        self.deleting = asyncio.Semaphore(1)
        self._settling: Timer | None = None
        self._due: Timer | None = None
        self._next = self._swept_upto = 0
        self._sweep_at = -math.inf
        self.appends = SessionQueueWriter(
            database,
            self.now,
            self.since,
            self.spawn,
            sleep=self._timers.sleep,
            ask=self._append_at,
            has_room=lambda: database.no_room() is None,
        )
        self._when_lost: Callable[[], object] = lambda: None
        self._freeing = freeing
        self._beating: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.workers: Workers | None = None
        if bus is not None:
            self.workers = Workers(
                database, worker, self._timers, gone=self._lost, free=self._free, catch_up=bus.catch_up
            )
            bus.on_missed(self._learn_shapes)
            bus.serve(AppendTo, self._append)
            bus.serve(DeliverTo, self._deliver)
            bus.serve(Yield, self._yield)
            bus.serve(LastSeenRequest, self._seen)
            bus.serve(ConnectedRequest, self._connected)
            bus.serve(AskClient, self._client)
            bus.serve(EndClient, self._end_client)
            bus.on(SubscriptionsChanged, self._subscriptions_changed)

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._clock.micros()

    def since(self) -> int:
        """Return from when on what began may be over by now: a clock that was just set ends nothing from before."""
        return self._steadiness.since()

    async def load(self) -> None:
        """Learn what is stored, before the spaces are made; free the sessions of a worker that was killed."""
        await take_over_earlier(self.database, self.now())
        for row in await self.database.all(store.SHAPES):
            self._shapes[row["space"]][row["shape"]] = row["total"]
        for place, counting in enumerate((store.COUNT_SESSIONS, store.COUNT_RETAINED)):
            for row in await self.database.all(counting):
                self._counts[row["space"]][place] = row["total"]
        self.appends.numbers.start_after(await self.last_message())

    async def last_message(self) -> int:
        """Return the greatest id of a message that waits for several sessions, 0 where there is none."""
        row = await self.database.one(store.LAST_MESSAGE)
        return 0 if row is None else row["id"] or 0

    def space(
        self,
        name: str,
        rules: SpaceRules,
        observer: Observer,
        condition: Condition | None = None,
        tap: PublishListener | None = None,
    ) -> Namespace:
        """Return the space of this name, made at its first use."""
        if (known := self._spaces.get(name)) is None:
            shapes, stored = self._shapes.pop(name, {}), self._counts.pop(name, [0, 0])
            known = Namespace(self, name, rules, observer, condition, shapes=shapes, stored=stored, tap=tap)
            self._spaces[name] = known
        return known

    def spaces(self) -> Iterable[Namespace]:
        """Return the spaces there are."""
        return self._spaces.values()

    async def join(self) -> None:
        """Say that this worker lives, and go on saying it."""
        if self.workers is not None:
            await self.workers.join()
            workers = self.workers
            self._beating = kept("the beat", lambda: keep_beating(workers, self._timers))

    async def start(self) -> None:
        """Begin to do what is due, when every space is there."""
        if (workers := self.workers) is None:
            await self.free_lost()
        elif self._beating is not None:  # what a dead worker had is freed in its order, which rooms have a part in
            self._watching = kept("the look at other workers", lambda: keep_looking(workers, self._timers))
        elif not workers.is_joined:
            await workers.join()
        await self._look()

    async def stop(self) -> None:
        """Write what is left to write."""
        for timer in (self._settling, self._due):
            if timer is not None:
                timer.cancel()
        self._settle()
        await self.settled(STOP_S)
        await ended(self._beating, self._watching)
        if self.workers is not None and self._beating is not None:
            await self.workers.leave()

    async def settled(self, most_s: float | None = None) -> None:
        """Return when nothing that was begun is unfinished, or so many seconds have passed."""
        until = None if most_s is None else self._loop.time() + most_s
        while self._tasks:
            wait_s = None if until is None else until - self._loop.time()
            if wait_s is not None and wait_s <= 0:
                log.warning("broker.not_settled", extra={"unfinished": len(self._tasks)})
                return
            await asyncio.wait(tuple(self._tasks), timeout=wait_s)

    def spawn(self, waiting: Awaitable[None]) -> None:
        """Run something to its end, whoever else is gone by then; what it raises is logged."""
        task = self._loop.create_task(told("the broker", waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await self._timers.sleep(seconds)

    # ---- other workers

    @property
    def is_fresh(self) -> bool:
        """What this worker remembers may be acted on: nobody else can have changed it without its knowledge."""
        return self.workers is None or self.workers.is_fresh

    def living(self) -> Changes:
        """Return what a commit begins with that holds only while nobody has declared this worker dead."""
        return Changes() if self.is_alone else Changes().run(store.STILL_LIVES, expect=1, key_id=self.worker)

    async def fresh(self) -> None:
        """Return when `is_fresh`. Raise `WorkerLostError`."""
        if self.workers is not None:
            await self.workers.fresh()

    async def vacate(self, space: SessionNamespace, client: str, record: SessionRecord, *, ends: bool) -> None:
        """Return when the worker that has a session has let go of it, or is dead and its session is free."""
        owner = record.owner or ""
        while self._bus is not None and self.workers is not None:
            try:
                await self._bus.ask(owner, Yield(space.name, client, ends), LEASE_S)
            except (NobodyThereError, NoAnswerError):
                if await self.workers.is_gone(owner):
                    await self._free(owner)
                    return
                await self._timers.sleep(_LOOK_AGAIN_S)
            else:
                return

    async def made_known(self, space: SessionNamespace, shapes: Iterable[str] = ()) -> None:
        """Return when every worker looks for filters of these shapes, and has forgotten what it looked up before."""
        if self._bus is not None and space.rules.routes:
            await self._bus.confirm(SubscriptionsChanged(space.name, tuple(sorted(set(shapes)))))

    async def leads(self) -> bool:
        """Say whether this is the worker that does what one does for all: the first of those that live."""
        return self.workers is None or all(self.worker < other for other in await self.workers.others())

    async def ask_others(self, request: BusRequest[R]) -> list[R]:
        """Return what the other workers that live answer; those that do not answer are left out."""
        if self._bus is None or self.workers is None:
            return []
        bus = self._bus

        async def ask(worker: str) -> R | None:
            try:
                return await bus.ask(worker, request)
            except (NobodyThereError, NoAnswerError):
                return None

        answers = await asyncio.gather(*(ask(worker) for worker in await self.workers.others()))
        return [answer for answer in answers if answer is not None]

    async def _seen(self, asked: LastSeenRequest) -> SeenThere:
        space = self._spaces.get(asked.space)
        seen = {client: space.seen(client) for client in asked.clients} if space is not None else {}
        return SeenThere({client: (one.at, one.reason) for client, one in seen.items() if one is not None})

    async def _client(self, asked: AskClient) -> ClientThere:
        space = self._spaces.get(asked.space)
        return ClientThere(is_there=False) if space is None else space.asked.here(asked.client)

    async def _end_client(self, asked: EndClient) -> ClientThere:
        space = self._spaces.get(asked.space)
        if space is None:
            return ClientThere(is_there=False)
        return ClientThere(space.asked.end_here(asked.client, with_will=asked.with_will, forgets=asked.forgets))

    async def connected(self) -> Mapping[str, int]:
        """Return how many clients are connected, by space: to this worker, and to others that answer."""
        found = Counter(self._counts_of_live())
        for answer in await self.ask_others(ConnectedRequest()):
            found.update(answer.counts)
        return found

    async def counted(self) -> Mapping[str, int]:
        """Return what this worker, and others that answer, have counted since each began, and who is connected."""
        found = Counter(self.counting())
        found["connected"] += sum(self._counts_of_live().values())
        for answer in await self.ask_others(ConnectedRequest()):
            found.update(answer.totals)
            found["connected"] += sum(answer.counts.values())
        return found

    async def _connected(self, _asked: ConnectedRequest) -> ConnectedThere:
        return ConnectedThere(self._counts_of_live(), dict(self.counting()))

    def _counts_of_live(self) -> dict[str, int]:
        return {space.name: len(space.live) for space in self._spaces.values()}

    async def _deliver_at(self, worker: str, request: DeliverTo) -> None:
        if self._bus is not None:
            await self._bus.ask(worker, request)

    async def _append_at(self, worker: str, space: str, client: str, messages: bytes) -> bool:
        if self._bus is None:
            return False
        answer = await self._bus.ask(worker, AppendTo(self.worker, space, client, messages))
        if not answer.is_here:
            await self._timers.sleep(_LOOK_AGAIN_S)
        return answer.is_here

    async def _append(self, asked: AppendTo) -> AppendReply:
        await self.fresh()
        space = self._spaces[asked.space]
        attached = space.live.get(asked.client)
        if attached is None or attached.outgoing is None or self.appends.is_sending(space, asked.client):
            return AppendReply(is_here=False)
        try:
            await space.messages.appended(asked.client, decode_messages(asked.messages), asked.sender)
        except ChangedMeanwhileError:
            return AppendReply(is_here=False)
        return AppendReply(is_here=True)

    async def _deliver(self, asked: DeliverTo) -> EmptyReply:
        begun = [  # all of them at once: one whose turns are far away keeps no other waiting
            self._spaces[letter.space].messages.delivered(message, letter.clients)
            for letter in asked.letters
            for message in decode_messages(letter.message)
        ]
        await asyncio.gather(*begun)
        return EmptyReply()

    async def _yield(self, asked: Yield) -> EmptyReply:
        await self._spaces[asked.space].yields(asked.client, ends=asked.ends)
        return EmptyReply()

    async def _learn_shapes(self) -> None:
        """Learn which shapes of filters there are: what was announced may have been missed."""
        for space in self._spaces.values():
            space.subscriptions.changed()
        for row in await self.database.all(store.SHAPES):
            self._subscriptions_changed(SubscriptionsChanged(row["space"], (row["shape"],)))

    def _subscriptions_changed(self, changed: SubscriptionsChanged) -> None:
        if (space := self._spaces.get(changed.space)) is not None:
            space.subscriptions.changed(changed.shapes)

    async def _free(self, owner: str) -> None:
        """Free what a dead worker had."""
        await self._freeing(owner)
        while rows := await self.database.all(store.OWNED_BY, owner=owner, limit=_PAGE):
            if not await self._freed(rows):
                break

    async def _freed(self, rows: Sequence[Row]) -> bool:
        """Free sessions; say False where some are of a room that is not served here."""
        known = [(self._spaces.get(row["space"]), row) for row in rows]
        ours = [(space, row) for space, row in known if space is not None]
        for first in range(0, len(ours), _FREED):
            await asyncio.gather(*(space.free(row) for space, row in ours[first : first + _FREED]))
        for space in {space for space, _ in ours}:
            await space.subscriptions_went()
        return all(space is not None for space, _ in known)

    def end_when_lost(self, end: Callable[[], object]) -> None:
        """Call `end` when the other workers took this one for dead; at once where it began so slowly that they have."""
        self._when_lost = end
        if self.workers is not None and self.workers.is_lost:
            end()

    def _lost(self) -> None:
        """Others took this worker for dead: nothing that its connections do counts any more."""
        for space in self._spaces.values():
            for attached in tuple(space.live.values()):
                space.fenced(attached)
        self._when_lost()

    # ---- cursors

    def settle_later(self, attached: ConnectedSession) -> None:
        """Write a cursor soon."""
        self.unsettled.add(attached)
        if self._settling is None:
            self._settling = self._timers.call_later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settling = None
        unsettled, self.unsettled = self.unsettled, set()
        for attached in unsettled:
            if attached.is_over or attached.outgoing is None:
                continue
            cursor = attached.outgoing.cursor
            name: dict[str, Any] = {"space": attached.space.name, "client": attached.client}
            changes = Changes().run(store.SETTLE, expect=1, cursor=cursor, **attached.fence)
            self.spawn(self._settled(attached, changes.run(store.DROP_SETTLED, upto=cursor, **name)))

    async def _settled(self, attached: ConnectedSession, changes: Changes) -> None:
        try:
            await self.database.commit(changes)
        except ChangedMeanwhileError:
            attached.space.fenced(attached)

    # ---- what is due

    def due_at(self, at: int | None) -> None:
        """Look again at this time."""
        if at is not None and (self._due is None or at < self._next):
            self._set_due(at)

    def _set_due(self, at: int) -> None:
        if self._due is not None:
            self._due.cancel()
        self._next = at
        wait = min(_LOOK_S, max(0.0, (at - self.now()) / 1_000_000))
        self._due = self._timers.call_later(wait, lambda: self.spawn(self._look()))

    async def _look(self) -> None:
        self._due = None
        times: list[int] = []
        try:
            await self.do_what_is_due()
            # What is due and may not end yet is looked at again with everything else.
            finds = (store.FIRST_WILL,) if self.since() else (store.FIRST_EXPIRY, store.FIRST_WILL)
            rows = [await self.database.one(find) for find in finds]
            times = [row["at"] for row in rows if row is not None and row["at"] is not None]
        finally:  # whatever went wrong: what is due then is looked at again
            self.due_at(min([*times, self.now() + int(_LOOK_S * 1_000_000)]))

    async def do_what_is_due(self) -> None:
        """Send the wills and end the sessions whose time has come."""
        while rows := await self.database.all(store.DUE_WILLS, now=self.now(), limit=_PAGE):
            sending = [(self._spaces.get(row["space"]), row) for row in rows]
            await asyncio.gather(*(space.send_due_will(row) for space, row in sending if space is not None))
            if len(rows) < _PAGE:
                break
        while rows := await self.database.all(store.EXPIRED, now=self.now(), since=self.since(), limit=_PAGE):
            for row in rows:
                if (space := self._spaces.get(row["space"])) is not None:
                    await space.forget(row["client"], record_of(row))
            if len(rows) < _PAGE:
                break
        if (since := self._clock.monotonic()) >= self._sweep_at:
            self._sweep_at = since + _UNUSED_AFTER_S
            await self._sweep(self.now())

    async def _sweep(self, now: int) -> None:
        """Drop what nobody can get any more."""
        since = self.since()
        await drop_unused(self.database, 0, at(now - _UNUSED_AFTER))
        # Numbers go on from a clock that was ahead: those say no time, and are old when the last look saw them.
        ahead, upto, self._swept_upto = at(now + _UNUSED_AFTER), self._swept_upto, self.appends.numbers.last
        if upto > ahead:
            await drop_unused(self.database, ahead, upto + 1)
        await drop_expired_retained(self.database, now, since)
        for space in tuple(self._spaces.values()):
            await space.retained.recount(now, since)
        await self._recount_sessions()
        await self._recount_shapes()

    async def _recount_shapes(self) -> None:
        """Learn again which shapes of filters there are: one too many costs little, one too few loses messages."""
        spaces = tuple(self._spaces.values())
        for space in spaces:
            space.subscriptions.shapes_are_read()
        found = defaultdict[str, set[str]](set)
        for row in await self.database.aside(store.SHAPES):
            found[row["space"]].add(row["shape"])
        for space in spaces:
            space.subscriptions.has_shapes(found[space.name])

    async def _recount_sessions(self) -> None:
        """Count again: what is removed with its device is told to nobody here."""
        seen = {space: space.stored for space in self._spaces.values()}
        rows = await self.database.all(store.COUNT_SESSIONS)
        totals = {row["space"]: row["total"] for row in rows}
        for space, before in seen.items():
            if space.stored == before:  # else what came meanwhile is not in the count
                space.stored_again(totals.get(space.name, 0))

    async def free_lost(self) -> None:
        """Free the sessions that a worker had when it was killed."""
        while rows := await self.database.all(store.OWNED_BY_OTHERS, owner=self.worker, limit=_PAGE):
            if not await self._freed(rows):
                break
