"""Queue writer of stored sessions: batches messages, commits them, and acknowledges them once durable.

Messages that arrive during a commit are written by the next one. The order per publisher is preserved, even if a
session moved and its messages must follow it: they are sent before later ones.
"""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVarTuple
from weakref import WeakValueDictionary

import msgspec

from birthmark.broker import store
from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.model import BrokerMessage, Done, SessionRecord, encode_messages
from birthmark.broker.worker_leases import WorkerLostError
from birthmark.bus.ports import NoAnswerError, WorkerUnreachableError
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.net.fair_scheduler import Slices
from birthmark.store import Changes, Database, Statement, may_be_kept
from birthmark.store.time_ids import Numbers
from birthmark.supervised_tasks import note

log = logging.getLogger(__name__)

MAX_ROW_MESSAGES = 256
MAX_ROW_BYTES = 64 * 1024
MAX_SESSIONS = 64
"""Maximum sessions per commit, separately for normal messages and for large fan-outs."""
MAX_ITEMS = 256
"""Maximum items per commit in each of the two classes, one item per receiving session."""
_MOST_BYTES = 512 * 1024
"""Maximum bytes per session in a commit or in a request to another worker; NATS allows 1 MB."""
_AT_ONCE = 8  # one publisher's messages in flight to other workers
_STEPS = 32  # sessions between two clock checks
_MAX_KNOWN = 4096
_AGAIN_S = 0.05
_MOST_HELD_S = 1.0
Key = tuple[SessionNamespace, str]
Facts = TypeVarTuple("Facts")


class PendingAppend:
    """One publisher's batch; `done` is called when it is in every required queue."""

    __slots__ = ("_done", "_left", "_problem", "_then", "sender")

    def __init__(self, done: Done, sender: str = "") -> None:
        self.sender = sender  # worker that accepted it, if several run
        self._done = done
        self._left = 1
        self._problem: BaseException | None = None
        self._then: tuple[Callable[..., object], tuple[Any, ...]] | None = None

    @property
    def is_over(self) -> bool:
        return not self._left

    def expect(self) -> None:
        """Add a durability condition."""
        self._left += 1

    def add_part(self) -> "PendingAppend":
        """Return a dependent append that completes on its own."""
        self.expect()
        return PendingAppend(self.complete_one, self.sender)

    def complete_one(self, problem: BaseException | None = None) -> None:
        """Complete one condition, with its error if it failed."""
        self._problem = self._problem or problem
        self._left -= 1
        if not self._left:
            self._done(self._problem)
            if self._then is not None:
                then, facts = self._then
                then(*facts)

    def when_over(self, then: Callable[[*Facts], object], *facts: *Facts) -> None:
        """Call `then` with these arguments after `done`."""
        self._then = then, facts

    def abandon(self) -> None:
        """Drop `done`: its caller is notified in another way."""
        self._done = _ignore_outcome
        self.complete_one()

    def complete_from_commit(self, commit: asyncio.Future[None]) -> None:
        """Complete a condition with the result of a commit."""
        self.complete_one(commit.exception())


def _ignore_outcome(problem: BaseException | None) -> None:
    del problem


Item = tuple[BrokerMessage, PendingAppend]


@dataclass(slots=True)
class _Write:
    """One session's part of a commit; `first` is the position of the first of `items`."""

    key: Key
    attached: ConnectedSession | None
    items: list[Item]
    first: int
    record: SessionRecord | None
    cursor: int | None = None
    """Position up to which the same commit deletes the queue."""


class SessionQueueWriter:
    """Writes messages of this worker's publishers to session queues."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        since: Callable[[], int],
        spawn: Callable[[Awaitable[None]], object],
        *,
        sleep: Callable[[float], Awaitable[None]],
        ask: Callable[[str, str, str, bytes], Awaitable[bool]],
        has_room: Callable[[], bool],
    ) -> None:
        self._database = database
        self._has_room, self._had_room = has_room, True
        self._now = now
        self._since = since
        self._spawn = spawn
        self._sleep = sleep
        self._ask = ask
        self._sending: set[Key] = set()  # to another worker
        self._lines: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._waiting: OrderedDict[Key, list[Item]] = OrderedDict()
        self._for_many: OrderedDict[Key, list[Item]] = OrderedDict()  # no session in both
        self._records: dict[Key, SessionRecord] = {}  # of unowned sessions, as last seen
        self._held_back: dict[Key, asyncio.Future[None]] = {}
        self._is_running = False
        self.numbers = Numbers(database.sharing)  # of messages for several sessions

    def add(
        self,
        space: SessionNamespace,
        client: str,
        message: BrokerMessage,
        pending: PendingAppend,
        *,
        is_for_many: bool = False,
    ) -> None:
        """Queue a message for a client; `is_for_many` keeps large fan-outs from delaying other messages."""
        pending.expect()
        key = (space, client)
        waiting = self._waiting.get(key)
        if waiting is None and (waiting := self._for_many.get(key)) is not None and not is_for_many:
            self._waiting[key] = self._for_many.pop(key)
        if waiting is None:
            (self._for_many if is_for_many else self._waiting)[key] = [(message, pending)]
        elif len(waiting) <= space.rules.max_waiting:
            waiting.append((message, pending))
        else:  # it will not fit; the previous one reports that
            space.count_dropped(1)
            pending.complete_one()
        if not self._is_running:
            self._begin()

    def _begin(self) -> None:
        if (self._waiting or self._for_many) and not self._is_running:
            self._is_running = True
            self._spawn(self._run())  # starts with the next loop iteration, with all items until then

    def forget(self, space: SessionNamespace, client: str) -> None:
        """Clear the cached state of a session that changed hands."""
        self._records.pop((space, client), None)

    async def _run(self) -> None:
        try:
            while self._waiting or self._for_many:
                if batch := self._next_batch():
                    await self._written_or_failed(batch)
                else:
                    await self._sleep(_AGAIN_S)
        finally:
            self._is_running = False

    def _next_batch(self) -> dict[Key, list[Item]]:
        """Take the next batch: a portion of normal messages, and a portion of large fan-outs.

        This bounds a commit and lets other commits run in between.
        """
        batch: dict[Key, list[Item]] = {}
        for queue in (self._waiting, self._for_many):
            sessions, room = 0, MAX_ITEMS
            for _ in range(len(queue)):
                if sessions >= MAX_SESSIONS or room <= 0:
                    break
                key, items = queue.popitem(last=False)
                if self._has_to_wait(key):
                    queue[key] = items  # after the others
                    self._held_back.setdefault(key, asyncio.get_running_loop().create_future())
                    continue
                self._let_through(key)
                if len(items) > (count := _fitting(items, room)):
                    queue[key], items = items[count:], items[:count]
                batch[key] = items
                sessions, room = sessions + 1, room - len(items)
        return batch

    async def _written_or_failed(self, batch: Mapping[Key, list[Item]]) -> None:
        """Write a batch.

        An internal error fails its messages, because their publishers would get no result otherwise.
        """
        try:
            await self._write(batch)
        except Exception as error:  # noqa: BLE001 - reported to waiters
            note("queues of stored sessions", error)
            for items in batch.values():
                _all_done([item for item in items if not item[1].is_over], error)

    async def wait_for_held_back(self, space: SessionNamespace, client: str) -> None:
        """Wait until messages held back by a previous takeover are written, or until a timeout.

        Otherwise, a client that reconnects continuously could block a session's publishers forever.
        """
        if (held := self._held_back.get((space, client))) is not None:
            await asyncio.wait({held}, timeout=_MOST_HELD_S)

    def _let_through(self, key: Key) -> None:
        if (held := self._held_back.pop(key, None)) is not None and not held.done():
            held.set_result(None)

    def _has_to_wait(self, key: Key) -> bool:
        """Return whether the session's messages must wait.

        That is during a takeover, or while earlier messages are in flight to another worker.
        """
        space, client = key
        return key in self._sending or space.is_arriving(client)

    async def _write(self, batch: Mapping[Key, list[Item]]) -> None:
        """Commit a batch; items rejected due to a changed session are retried before later ones."""
        slices, writes, commits = Slices(_STEPS), list[_Write](), list[asyncio.Future[None]]()
        for key, items in batch.items():
            if (write := await self._begin_write(key, items)) is not None:
                writes.append(write)
            await slices.step()
        shared, keeping = self._kept_once(writes)
        for write in writes:
            commits.append(self._database.submit(self._changes(write, shared)))
            await slices.step()
        if commits:
            await asyncio.wait([*commits, *keeping])
        not_kept, was_refused = keeping[0].exception() if keeping else None, bool(writes)
        for write, commit in zip(writes, commits, strict=True):
            problem = commit.exception() or not_kept
            if isinstance(problem, ChangedMeanwhileError) or may_be_kept(problem):  # duplicates allowed, no losses
                self._records.pop(write.key, None)
                self._take_again(write.key, await self._of_the_living(write.items))
                if write.attached is not None and not write.attached.is_over:
                    await self._looked_again(write.attached)
            else:
                was_refused = False
                try:
                    self._written(write, problem)
                except Exception as error:  # noqa: BLE001 - our errors affect one session
                    note(f"the queue of {write.key[1]}", error)
            await slices.step()
        if was_refused:
            await self._sleep(_AGAIN_S)

    async def _of_the_living(self, items: list[Item]) -> list[Item]:
        """Return the items accepted by live workers; fail the others."""
        senders = {pending.sender for _, pending in items}
        dead = {sender for sender in senders if sender and not await self._lives(sender)}
        for worker in dead:
            _all_done([item for item in items if item[1].sender == worker], WorkerLostError(worker=worker))
        return [item for item in items if item[1].sender not in dead]

    async def _lives(self, worker: str) -> bool:
        with contextlib.suppress(BirthmarkError):  # a database outage proves nothing
            return await self._database.one(store.WORKER, id=worker) is not None
        return True

    def _take_again(self, key: Key, items: list[Item]) -> None:
        if items:
            self._waiting[key] = items + self._taken_out(key)

    def _fail(self, key: Key, items: Sequence[Item], problem: BaseException) -> None:
        """Fail items with an unknown result, and the waiting ones.

        The waiting items would otherwise overtake the retries.
        """
        _all_done(items, problem)
        _all_done(self._taken_out(key), problem)

    def _taken_out(self, key: Key) -> list[Item]:
        """Remove and return the waiting items of a session."""
        self._let_through(key)
        return self._waiting.pop(key, None) or self._for_many.pop(key, None) or []

    async def _begin_write(self, key: Key, items: list[Item]) -> _Write | None:
        """Return the write for a session.

        If another worker has the session, send the items to it and return None.
        """
        try:
            write = await self._prepared(key, items)
        except BirthmarkError as error:
            self._fail(key, items, error)
            return None
        if isinstance(write, str):
            own = [item for item in items if item[1].sender in {"", key[0].worker}]
            if len(own) < len(items):  # other senders find the session themselves: mutual waits would deadlock
                moved = ChangedMeanwhileError(what="The session")
                _all_done([item for item in items if item[1].sender not in {"", key[0].worker}], moved)
            if own:
                self._sending.add(key)
                self._spawn(self._send(write, key, own))
            return None
        return write

    def is_sending(self, space: SessionNamespace, client: str) -> bool:
        """Return whether messages of a session are in flight to another worker; new ones would wait."""
        return (space, client) in self._sending

    async def _send(self, owner: str, key: Key, items: list[Item]) -> None:
        """Send items to the worker that has the session; requeue them if it no longer has it."""
        is_here, problem, first = False, None, items[0][0]
        line = self._lines.setdefault(first.principal or first.publisher, asyncio.Semaphore(_AT_ONCE))
        try:
            async with line:
                messages = encode_messages([message for message, _ in items])
                is_here = await self._ask(owner, key[0].name, key[1], messages)
        except (WorkerUnreachableError, NoAnswerError):  # it may have them anyway: duplicates are allowed, losses not
            await self._sleep(_AGAIN_S)
        except BirthmarkError as error:
            problem = error
        self._sending.discard(key)
        if problem is not None:
            self._fail(key, items, problem)
        elif is_here:
            _all_done(items, None)
        else:
            self._take_again(key, items)
        self._begin()

    async def _prepared(self, key: Key, items: list[Item]) -> _Write | str | None:
        """Return the write for a session, or the worker that has it.

        Return None if it does not exist or its queue is full.
        """
        space, client = key
        attached = space.live.get(client)
        record: SessionRecord | None = None
        if attached is not None and attached.outgoing is not None:
            tail, depth = attached.outgoing.tail, attached.outgoing.depth
        else:
            attached = None
            record = self._records.get(key) or await space.record(client)
            if record is None or record.is_expired(self._now(), self._since()):
                _all_done(items, None)
                return None
            if record.owner not in {None, space.worker} and not space.is_alone:
                return record.owner
            tail, depth = record.tail, record.tail - record.cursor
        room = max(0, space.rules.max_waiting - depth)
        if not self._disk_has_room():
            space.count_dropped(len(items))
            _all_done(items, None)
            return None
        if len(items) > room:
            space.count_dropped(len(items) - room)
            space.observer.overrun(client, space.rules.max_waiting)
            _all_done(items[room:], None)
            items = items[:room]
        return _Write(key, attached, items, tail + 1, record) if items else None

    def _disk_has_room(self) -> bool:
        """Return whether queues may use more disk space; changes are logged."""
        has_room = self._has_room()
        if has_room != self._had_room:
            log.warning("broker.disk_has_room" if has_room else "broker.disk_nearly_full")
            self._had_room = has_room
        return has_room

    def _changes(self, write: _Write, shared: Mapping[int, int]) -> Changes:
        space, client = write.key
        senders = {pending.sender for _, pending in write.items if pending.sender}
        tail, now = write.first + len(write.items) - 1, self._now()
        changes = Changes()
        if write.attached is not None and write.attached.outgoing is not None:
            attached, cursor = write.attached, write.attached.outgoing.cursor
            changes.run(store.ADVANCE, expect=1, tail=tail, cursor=cursor, key_tail=write.first - 1, **attached.fence)
            if space.is_unsettled(attached):
                write.cursor = cursor
                changes.run(store.DROP_SETTLED, space=space.name, client=client, upto=cursor)
        elif write.record is not None:
            changes.run(self._away(write.record, space), expect=1, **self._as_read(write.record, space, client, tail))
        for sender in sorted(senders):  # messages of workers declared dead since have no owner
            changes.run(store.STILL_LIVES, expect=1, key_id=sender)
        for row in _rows(write, shared):
            changes.run(store.APPEND, space=space.name, client=client, at=now, **row)
        return changes

    def _away(self, record: SessionRecord, space: SessionNamespace) -> Statement:
        """Return the UPDATE for a session that no worker owns, or that this worker has not released yet."""
        return store.ADVANCE_AWAY if record.owner != space.worker else store.ADVANCE

    def _as_read(self, record: SessionRecord, space: SessionNamespace, client: str, tail: int) -> dict[str, Any]:
        seen: dict[str, Any] = {"key_space": space.name, "key_client": client, "tail": tail}
        seen |= {"key_epoch": record.epoch, "key_tail": record.tail}
        return seen if record.owner != space.worker else {**seen, "key_owner": space.worker, "cursor": record.cursor}

    def _kept_once(self, writes: Sequence[_Write]) -> tuple[Mapping[int, int], list[asyncio.Future[None]]]:
        """Submit each message for several sessions only once.

        Return the message numbers by object identity, and the pending commit, if any.
        """
        if len(writes) < 2:  # noqa: PLR2004 - several
            return {}, []
        times = Counter(id(message) for write in writes for message, _ in write.items)
        numbers: dict[int, int] = {}
        changes, now = Changes(), self._now()
        for write in writes:
            for message, _ in write.items:
                if times[id(message)] > 1 and id(message) not in numbers:
                    number = self.numbers.next(now)
                    numbers[id(message)] = number
                    changes.run(store.KEEP_MESSAGE, id=number, body=encode_messages([message]))
        return numbers, [self._database.submit(changes)] if numbers else []

    async def _looked_again(self, attached: ConnectedSession) -> None:
        """Re-read a connected session after a rejected write: another worker has it, or a response was lost."""
        space = attached.space
        with contextlib.suppress(BirthmarkError):
            record = await space.record(attached.client)
            if record is None or (record.epoch, record.owner) != (attached.epoch, space.worker):
                space.fenced(attached)
            elif attached.outgoing is not None:
                attached.outgoing.tail = max(attached.outgoing.tail, record.tail)

    def _written(self, write: _Write, problem: BaseException | None) -> None:
        """Handle the result of a commit: durable, or unknown."""
        self._records.pop(write.key, None)
        attached = write.attached
        if problem is None:
            messages = [message for message, _ in write.items]
            if attached is not None and attached.outgoing is not None:
                attached.outgoing.appended(write.first, messages)
                if write.cursor == attached.outgoing.cursor:
                    attached.space.is_settled(attached)
            elif write.record is not None and len(self._records) < _MAX_KNOWN:
                tail = write.first + len(messages) - 1
                self._records[write.key] = msgspec.structs.replace(write.record, tail=tail)
            _all_done(write.items, None)
        else:
            self._fail(write.key, write.items, problem)
            if attached is not None:
                self._spawn(self._looked_again(attached))
        if attached is not None:
            attached.flow()


def _fitting(items: Sequence[Item], room: int) -> int:
    """Return the number of items that fit in one commit, by count and by total size."""
    size = 0
    for count, (message, _) in enumerate(items[:room]):
        size += message.size if message.properties else len(message.payload)
        if count and size > _MOST_BYTES:
            return count
    return room


def _rows(write: _Write, shared: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """Yield queue rows: shared messages by number, all others as runs of messages."""
    last = write.first - 1
    run: list[BrokerMessage] = []
    size = 0
    for message, _ in write.items:
        number = shared.get(id(message))
        is_full = len(run) >= MAX_ROW_MESSAGES or size >= MAX_ROW_BYTES
        if run and (is_full or number is not None):
            yield {"last": last, "count": len(run), "message": None, "body": encode_messages(run)}
            run, size = [], 0
        last += 1
        if number is not None:
            yield {"last": last, "count": 1, "message": number, "body": None}
        else:
            run.append(message)
            size += message.size
    if run:
        yield {"last": last, "count": len(run), "message": None, "body": encode_messages(run)}


def _all_done(items: Sequence[Item], problem: BaseException | None) -> None:
    for _, pending in items:
        pending.complete_one(problem)
