"""The broker of a worker: namespaces, due actions and pending writes."""

import asyncio
import contextlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from birthmark.broker import store
from birthmark.broker.bus_requests import (
    AppendReply,
    AppendRequest,
    AskClient,
    ClientReply,
    ConnectedReply,
    ConnectedRequest,
    DeliverRequest,
    EndClient,
    LastSeenReply,
    LastSeenRequest,
    LeaseReply,
    LeaseRequest,
    SubscriptionsChanged,
    Yield,
)
from birthmark.broker.chunked_deletes import drop_expired_retained, drop_unused
from birthmark.broker.connected_session import ConnectedSession, Observer, SessionNamespace
from birthmark.broker.legacy_session_migration import migrate_legacy_sessions
from birthmark.broker.model import SessionRecord, decode_messages
from birthmark.broker.namespace_sessions import Condition, Namespace, record_of
from birthmark.broker.ports import PresenceListener, PublishListener
from birthmark.broker.publisher_backpressure import UNWRITTEN_BYTES, InFlightBudget
from birthmark.broker.rules.leases import LEASE_S
from birthmark.broker.rules.principal_quotas import SpaceRules
from birthmark.broker.session_queue_writer import SessionQueueWriter
from birthmark.broker.worker_forwarder import WorkerForwarder
from birthmark.broker.worker_leases import (
    LoopTimers,
    Timer,
    Timers,
    Workers,
    keep_beating,
    run_cut_off_loop,
    run_failure_detector_loop,
)
from birthmark.bus import Bus
from birthmark.bus.ports import BusRequest, EmptyReply, NoAnswerError, R, WorkerUnreachableError
from birthmark.clock_and_entropy import Clock, ClockStability
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.time_ids import at
from birthmark.supervised_tasks import cancel_and_wait, start_supervised, told

log = logging.getLogger(__name__)

SETTLE_S = 0.1
_LOOK_S = 60.0
STOP_S = 10.0  # the next start finishes the rest, as after a crash
_PAGE = 500
_FREED = 64
"""Sessions of a dead worker freed per batch, to leave capacity for reconnecting devices."""
_LOOK_AGAIN_S = 0.05
_UNUSED_AFTER_S = 60.0
_UNUSED_AFTER = int(_UNUSED_AFTER_S * 1_000_000)


async def _nothing_else(_worker: str) -> None: ...


class Broker:
    """The broker of a worker; with a `bus`, other workers share the database."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        worker: str,
        bus: Bus | None = None,
        timers: Timers | None = None,
        *,
        watch: PresenceListener | None = None,
        counting: Callable[[], Mapping[str, int]] = dict,
        freeing: Callable[[str], Awaitable[None]] = _nothing_else,
    ) -> None:
        """Create a broker; `counting` returns additional counters of this worker, for rate displays.

        `freeing` is called with a dead worker before its sessions are freed; it frees the worker's other resources.
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
        self.in_flight = self.across.in_flight
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
            has_room=lambda: database.find_disk_full_error() is None,
        )
        self._when_lost: Callable[[], object] = lambda: None
        self._freeing = freeing
        self._held: dict[str, tuple[asyncio.Future[None], float]] = {}
        """By dead worker: the release of what it held, and until when it counts."""
        self._beating: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.workers: Workers | None = None
        if bus is not None:
            self.workers = Workers(
                database,
                worker,
                self._timers,
                gone=self._handle_lease_loss,
                free=self._free,
                catch_up=bus.catch_up,
                is_any_fresh=self._is_any_fresh,
            )
            bus.on_missed(self._reload_shapes)
            bus.serve(AppendRequest, self._append)
            bus.serve(DeliverRequest, self._deliver)
            bus.serve(Yield, self._yield)
            bus.serve(LeaseRequest, self._lease)
            bus.serve(LastSeenRequest, self._seen)
            bus.serve(ConnectedRequest, self._connected)
            bus.serve(AskClient, self._client)
            bus.serve(EndClient, self._end_client)
            bus.on(SubscriptionsChanged, self._subscriptions_changed)

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._clock.micros()

    def since(self) -> int:
        """Return the time from which expirations count.

        A recent clock change expires nothing that began before it.
        """
        return self._steadiness.since()

    async def load(self) -> None:
        """Load stored state before namespaces are created; free the sessions of a killed worker."""
        await migrate_legacy_sessions(self.database, self.now())
        for row in await self.database.all(store.SHAPES):
            self._shapes[row["space"]][row["shape"]] = row["total"]
        for place, counting in enumerate((store.COUNT_SESSIONS, store.COUNT_RETAINED)):
            for row in await self.database.all(counting):
                self._counts[row["space"]][place] = row["total"]
        self.appends.numbers.start_after(await self.last_message())

    async def last_message(self) -> int:
        """Return the highest ID of a message queued for several sessions, or 0."""
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
        """Return the namespace with this name; create it on first use."""
        if (known := self._spaces.get(name)) is None:
            shapes, stored = self._shapes.pop(name, {}), self._counts.pop(name, [0, 0])
            known = Namespace(self, name, rules, observer, condition, shapes=shapes, stored=stored, tap=tap)
            self._spaces[name] = known
        return known

    def spaces(self) -> Iterable[Namespace]:
        """Return all namespaces."""
        return self._spaces.values()

    async def join(self) -> None:
        """Register this worker and start its heartbeat."""
        if self.workers is not None:
            await self.workers.join()
            workers = self.workers
            self._beating = start_supervised("the heartbeat", lambda: keep_beating(workers, self._timers))

    async def start(self) -> None:
        """Start the due actions, after all namespaces are created."""
        if (workers := self.workers) is None:
            await self.free_lost()
        elif self._beating is not None:  # a dead worker's state is freed in order, with other modules
            self._watching = start_supervised(
                "the look at other workers", lambda: run_failure_detector_loop(workers, self._timers)
            )
            self._ending = start_supervised("the end if cut off", lambda: run_cut_off_loop(workers, self._timers))
        elif not workers.is_joined:
            await workers.join()
        await self._look()

    async def stop(self) -> None:
        """Flush pending writes and stop."""
        for timer in (self._settling, self._due):
            if timer is not None:
                timer.cancel()
        self._settle()
        await self.wait_until_settled(STOP_S)
        await cancel_and_wait(self._beating, self._watching, self._ending)
        if self.workers is not None and self._beating is not None:
            await self.workers.leave()

    async def wait_until_settled(self, most_s: float | None = None) -> None:
        """Return when all started work is finished, or after `most_s` seconds."""
        until = None if most_s is None else self._loop.time() + most_s
        while self._tasks:
            wait_s = None if until is None else until - self._loop.time()
            if wait_s is not None and wait_s <= 0:
                log.warning("broker.not_settled", extra={"unfinished": len(self._tasks)})
                return
            await asyncio.wait(tuple(self._tasks), timeout=wait_s)

    def spawn(self, waiting: Awaitable[None]) -> None:
        """Run an awaitable to completion, independent of its caller; log its exceptions."""
        task = self._loop.create_task(told("the broker", waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def sleep(self, seconds: float) -> None:
        """Sleep for the given number of seconds."""
        await self._timers.sleep(seconds)

    # ---- other workers

    @property
    def is_fresh(self) -> bool:
        """Whether this worker may use its cached state: its lease guarantees that no other worker changed it."""
        return self.workers is None or self.workers.is_fresh

    def live_workers(self) -> Collection[str]:
        """Return the workers that are not declared dead, this one included; none if it does not know."""
        return () if self.workers is None else self.workers.live()

    def liveness_guard(self) -> Changes:
        """Return a write guard that requires this worker not to be declared dead."""
        return Changes() if self.is_alone else Changes().run(store.STILL_LIVES, expect=1, key_id=self.worker)

    async def wait_until_fresh(self) -> None:
        """Wait until `is_fresh`. Raise `WorkerLostError`."""
        if self.workers is not None:
            await self.workers.fresh()

    async def vacate(self, space: SessionNamespace, client: str, record: SessionRecord, *, ends: bool) -> None:
        """Wait until the worker that holds a session has released it, or is dead and its session is free."""
        owner = record.owner or ""
        while self._bus is not None and self.workers is not None:
            try:
                await self._bus.ask(owner, Yield(space.name, client, ends), LEASE_S)
            except (WorkerUnreachableError, NoAnswerError):
                if await self.workers.is_gone(owner):  # its other sessions are freed by the failure detector
                    await self._free_held(owner)
                    await self._spaces[space.name].free_for_client(client, record)
                    return
                await self._timers.sleep(_LOOK_AGAIN_S)
            else:
                return

    async def announce_shapes(self, space: SessionNamespace, shapes: Iterable[str] = ()) -> None:
        """Wait until every worker matches filters of these shapes and has cleared its route cache."""
        if self._bus is not None and space.rules.routes:
            await self._bus.confirm(SubscriptionsChanged(space.name, tuple(sorted(set(shapes)))))

    async def is_leader(self) -> bool:
        """Return whether this worker is the leader: the first of the live workers."""
        return self.workers is None or all(self.worker < other for other in await self.workers.others())

    async def ask_others(self, request: BusRequest[R]) -> list[R]:
        """Return the replies of the other live workers; workers that do not reply are omitted."""
        if self._bus is None or self.workers is None:
            return []
        bus = self._bus

        async def ask(worker: str) -> R | None:
            try:
                return await bus.ask(worker, request)
            except (WorkerUnreachableError, NoAnswerError):
                return None

        answers = await asyncio.gather(*(ask(worker) for worker in await self.workers.others()))
        return [answer for answer in answers if answer is not None]

    async def _lease(self, _asked: LeaseRequest) -> LeaseReply:
        return LeaseReply(self.is_fresh)

    async def _is_any_fresh(self, workers: Collection[str]) -> bool:
        """Return whether one of these workers has a valid lease; those that do not reply have none."""
        if self._bus is None:
            return False
        for worker in sorted(workers):
            with contextlib.suppress(WorkerUnreachableError, NoAnswerError, TimeoutError):
                async with asyncio.timeout(LEASE_S):  # without an answer, the bus asks the database, which is away
                    if (await self._bus.ask(worker, LeaseRequest(), LEASE_S)).is_fresh:
                        return True
        return False

    async def _seen(self, request: LastSeenRequest) -> LastSeenReply:
        space = self._spaces.get(request.space)
        seen = {client: space.find_last_contact(client) for client in request.clients} if space is not None else {}
        return LastSeenReply({client: (one.at, one.reason) for client, one in seen.items() if one is not None})

    async def _client(self, request: AskClient) -> ClientReply:
        space = self._spaces.get(request.space)
        return ClientReply(is_there=False) if space is None else space.asked.here(request.client)

    async def _end_client(self, request: EndClient) -> ClientReply:
        space = self._spaces.get(request.space)
        if space is None:
            return ClientReply(is_there=False)
        return ClientReply(space.asked.end_here(request.client, with_will=request.with_will, forgets=request.forgets))

    async def connected(self) -> Mapping[str, int]:
        """Return the number of connected clients by namespace, summed over the workers that reply."""
        found = Counter(self._counts_of_live())
        for answer in await self.ask_others(ConnectedRequest()):
            found.update(answer.counts)
        return found

    async def collect_counters(self) -> Mapping[str, int]:
        """Return the counters since each worker's start, and the connected clients.

        They are summed over the workers that reply.
        """
        found = Counter(self.counting())
        found["connected"] += sum(self._counts_of_live().values())
        for answer in await self.ask_others(ConnectedRequest()):
            found.update(answer.totals)
            found["connected"] += sum(answer.counts.values())
        return found

    async def _connected(self, _asked: ConnectedRequest) -> ConnectedReply:
        return ConnectedReply(self._counts_of_live(), dict(self.counting()))

    def _counts_of_live(self) -> dict[str, int]:
        return {space.name: len(space.live) for space in self._spaces.values()}

    async def _deliver_at(self, worker: str, request: DeliverRequest) -> None:
        if self._bus is not None:
            await self._bus.ask(worker, request)

    async def _append_at(self, worker: str, space: str, client: str, messages: bytes) -> bool:
        if self._bus is None:
            return False
        answer = await self._bus.ask(worker, AppendRequest(self.worker, space, client, messages))
        if not answer.is_here:
            await self._timers.sleep(_LOOK_AGAIN_S)
        return answer.is_here

    async def _append(self, request: AppendRequest) -> AppendReply:
        await self.wait_until_fresh()
        space = self._spaces[request.space]
        attached = space.live.get(request.client)
        if attached is None or attached.outgoing is None or self.appends.is_sending(space, request.client):
            return AppendReply(is_here=False)
        try:
            await space.messages.append_forwarded(request.client, decode_messages(request.messages), request.sender)
        except ChangedMeanwhileError:
            return AppendReply(is_here=False)
        return AppendReply(is_here=True)

    async def _deliver(self, request: DeliverRequest) -> EmptyReply:
        begun = [  # concurrently: a long queue must not delay the others
            self._spaces[letter.space].messages.deliver_forwarded(message, letter.clients)
            for letter in request.letters
            for message in decode_messages(letter.message)
        ]
        await asyncio.gather(*begun)
        return EmptyReply()

    async def _yield(self, asked: Yield) -> EmptyReply:
        await self._spaces[asked.space].release_for_takeover(asked.client, ends=asked.ends)
        return EmptyReply()

    async def _reload_shapes(self) -> None:
        """Reload the filter shapes; announcements may have been missed."""
        for space in self._spaces.values():
            space.subscriptions.changed()
        for row in await self.database.all(store.SHAPES):
            self._subscriptions_changed(SubscriptionsChanged(row["space"], (row["shape"],)))

    def _subscriptions_changed(self, changed: SubscriptionsChanged) -> None:
        if (space := self._spaces.get(changed.space)) is not None:
            space.subscriptions.changed(changed.shapes)

    async def _free(self, owner: str) -> None:
        """Free the resources of a dead worker."""
        await self._free_held(owner)
        while rows := await self.database.all(store.OWNED_BY, owner=owner, limit=_PAGE):
            if not await self._free_sessions(rows):
                break

    async def _free_held(self, owner: str) -> None:
        """Free what a dead worker held, except sessions; once for all clients that come for its sessions."""
        task, until = self._held.get(owner, (None, 0.0))
        now = self._timers.monotonic()
        if task is None or now >= until:  # a worker that starts again is not dead before a lease has passed
            task = asyncio.ensure_future(self._freeing(owner))
            self._held[owner] = task, now + LEASE_S
        try:
            await asyncio.shield(task)
        except BirthmarkError:
            self._held.pop(owner, None)
            raise

    async def _free_sessions(self, rows: Sequence[Row]) -> bool:
        """Free sessions; return False if some belong to a package that is not served here."""
        known = [(self._spaces.get(row["space"]), row) for row in rows]
        ours = [(space, row) for space, row in known if space is not None]
        for first in range(0, len(ours), _FREED):
            await asyncio.gather(
                *(space.free(row["client"], record_of(row)) for space, row in ours[first : first + _FREED])
            )
        for space in {space for space, _ in ours}:
            await space.await_subscription_removal()
        return all(space is not None for space, _ in known)

    def end_when_lost(self, end: Callable[[], object]) -> None:
        """Call `end` when other workers declare this one dead.

        If that has already happened, call it immediately.
        """
        self._when_lost = end
        if self.workers is not None and self.workers.is_lost:
            end()

    def _handle_lease_loss(self) -> None:
        """Handle the loss of the lease: no action of this worker's connections counts anymore."""
        for space in self._spaces.values():
            for attached in tuple(space.live.values()):
                space.fenced(attached)
        self._when_lost()

    # ---- cursors

    def settle_later(self, attached: ConnectedSession) -> None:
        """Schedule the write of the session's queue cursor."""
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

    # ---- scheduled work

    def due_at(self, timestamp: int | None) -> None:
        """Schedule the next check for due actions."""
        if timestamp is not None and (self._due is None or timestamp < self._next):
            self._set_due(timestamp)

    def _set_due(self, timestamp: int) -> None:
        if self._due is not None:
            self._due.cancel()
        self._next = timestamp
        wait = min(_LOOK_S, max(0.0, (timestamp - self.now()) / 1_000_000))
        self._due = self._timers.call_later(wait, lambda: self.spawn(self._look()))

    async def _look(self) -> None:
        self._due = None
        times: list[int] = []
        try:
            await self.process_due_items()
            # Due items that may not end yet are checked again with all others.
            finds = (store.FIRST_WILL,) if self.since() else (store.FIRST_EXPIRY, store.FIRST_WILL)
            rows = [await self.database.one(find) for find in finds]
            times = [row["at"] for row in rows if row is not None and row["at"] is not None]
        finally:  # after an error: check due items again
            self.due_at(min([*times, self.now() + int(_LOOK_S * 1_000_000)]))

    async def process_due_items(self) -> None:
        """Publish due wills and end expired sessions."""
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
        """Delete messages that can no longer be delivered."""
        since = self.since()
        await drop_unused(self.database, 0, at(now - _UNUSED_AFTER))
        # Numbers continue from a clock that was ahead: they encode no time, and are old if the last run already saw
        # them.
        ahead, upto, self._swept_upto = at(now + _UNUSED_AFTER), self._swept_upto, self.appends.numbers.last
        if upto > ahead:
            await drop_unused(self.database, ahead, upto + 1)
        await drop_expired_retained(self.database, now, since)
        for space in tuple(self._spaces.values()):
            await space.retained.recount(now, since)
        await self._recount_sessions()
        await self._recount_shapes()

    async def _recount_shapes(self) -> None:
        """Reload the filter shapes: an extra shape costs little, a missing shape loses messages."""
        spaces = tuple(self._spaces.values())
        for space in spaces:
            space.subscriptions.begin_shape_read()
        found = defaultdict[str, set[str]](set)
        for row in await self.database.read_in_background(store.SHAPES):
            found[row["space"]].add(row["shape"])
        for space in spaces:
            space.subscriptions.finish_shape_read(found[space.name])

    async def _recount_sessions(self) -> None:
        """Recount the stored sessions; deleting a device removes sessions without a notification."""
        seen = {space: space.stored for space in self._spaces.values()}
        rows = await self.database.all(store.COUNT_SESSIONS)
        totals = {row["space"]: row["total"] for row in rows}
        for space, before in seen.items():
            if space.stored == before:  # otherwise messages arrived after the count
                space.set_stored_count(totals.get(space.name, 0))

    async def free_lost(self) -> None:
        """Release the sessions that a killed worker owned."""
        while rows := await self.database.all(store.OWNED_BY_OTHERS, owner=self.worker, limit=_PAGE):
            if not await self._free_sessions(rows):
                break
