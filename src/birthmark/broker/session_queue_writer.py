"""Messages into the queues of stored sessions: gathered, committed together, acknowledged when they are durable.

All that comes while a commit runs goes into the next one. What one publisher sends keeps its order, also where a
session changed hands meanwhile and its messages have to be taken there: they go before what came later.
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
from birthmark.bus.ports import NoAnswerError, NobodyThereError
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.net.fair_scheduler import Slices
from birthmark.store import Changes, Database, Statement, may_be_kept
from birthmark.store.time_ids import Numbers
from birthmark.supervised_tasks import note

log = logging.getLogger(__name__)

MAX_ROW_MESSAGES = 256
MAX_ROW_BYTES = 64 * 1024
MAX_SESSIONS = 64
"""So many sessions' messages go into a commit at most, and as many of those that get what very many get."""
MAX_ITEMS = 256
"""So many messages of each go into it, one for each session that gets it."""
_MOST_BYTES = 512 * 1024
"""Of one session's messages in a commit, or on their way to another worker: NATS takes a megabyte by itself."""
_AT_ONCE = 8  # of what one publisher's messages have on their way to other workers
_STEPS = 32  # sessions between two looks at the clock
_MAX_KNOWN = 4096
_AGAIN_S = 0.05
_MOST_HELD_S = 1.0
Key = tuple[SessionNamespace, str]
Facts = TypeVarTuple("Facts")


class PendingAppend:
    """What one publisher sent at once; `done` is called when it is in every queue it has to be in."""

    __slots__ = ("_done", "_left", "_problem", "_then", "sender")

    def __init__(self, done: Done, sender: str = "") -> None:
        self.sender = sender  # the worker that took it, where there are several
        self._done = done
        self._left = 1
        self._problem: BaseException | None = None
        self._then: tuple[Callable[..., object], tuple[Any, ...]] | None = None

    @property
    def is_over(self) -> bool:
        return not self._left

    def expect(self) -> None:
        """One more thing has to be durable first."""
        self._left += 1

    def part(self) -> "PendingAppend":
        """Return what one thing more hangs on, which is over by itself."""
        self.expect()
        return PendingAppend(self.one_done, self.sender)

    def one_done(self, problem: BaseException | None = None) -> None:
        """One thing is, or never will be."""
        self._problem = self._problem or problem
        self._left -= 1
        if not self._left:
            self._done(self._problem)
            if self._then is not None:
                then, facts = self._then
                then(*facts)

    def when_over(self, then: Callable[[*Facts], object], *facts: *Facts) -> None:
        """Call `then` with these facts after `done`."""
        self._then = then, facts

    def abandon(self) -> None:
        """Whoever waits for `done` hears of it in another way."""
        self._done = _nobody
        self.one_done()

    def written(self, commit: asyncio.Future[None]) -> None:
        """One thing is that a commit was about."""
        self.one_done(commit.exception())


def _nobody(problem: BaseException | None) -> None:
    del problem


Item = tuple[BrokerMessage, PendingAppend]


@dataclass(slots=True)
class _Write:
    """One session's part of a commit: `first` is the position of the first of `items`."""

    key: Key
    attached: ConnectedSession | None
    items: list[Item]
    first: int
    record: SessionRecord | None
    cursor: int | None = None
    """Up to where its queue is emptied by the way."""


class SessionQueueWriter:
    """The queues of this worker's publishers."""

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
        self._for_many: OrderedDict[Key, list[Item]] = OrderedDict()  # no session is in both
        self._records: dict[Key, SessionRecord] = {}  # of sessions nobody has, as they were last seen
        self._held_back: dict[Key, asyncio.Future[None]] = {}
        self._is_running = False
        self.numbers = Numbers(database.sharing)  # of messages that go to several sessions

    def add(
        self,
        space: SessionNamespace,
        client: str,
        message: BrokerMessage,
        pending: PendingAppend,
        *,
        is_for_many: bool = False,
    ) -> None:
        """Queue a message for a client; one that is for very many does not keep what is for few waiting."""
        pending.expect()
        key = (space, client)
        waiting = self._waiting.get(key)
        if waiting is None and (waiting := self._for_many.get(key)) is not None and not is_for_many:
            self._waiting[key] = self._for_many.pop(key)
        if waiting is None:
            (self._for_many if is_for_many else self._waiting)[key] = [(message, pending)]
        elif len(waiting) <= space.rules.max_waiting:
            waiting.append((message, pending))
        else:  # there will be no room for it, which is told of the one before
            space.count_dropped(1)
            pending.one_done()
        if not self._is_running:
            self._begin()

    def _begin(self) -> None:
        if (self._waiting or self._for_many) and not self._is_running:
            self._is_running = True
            self._spawn(self._run())  # begins with the next turn of the loop, with all that comes until then

    def forget(self, space: SessionNamespace, client: str) -> None:
        """A session changed hands."""
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
        """Take what is written next: a portion of what is for few, and one of what is for very many.

        So a commit is bounded, and others' come between two of ours.
        """
        batch: dict[Key, list[Item]] = {}
        for queue in (self._waiting, self._for_many):
            sessions, room = 0, MAX_ITEMS
            for _ in range(len(queue)):
                if sessions >= MAX_SESSIONS or room <= 0:
                    break
                key, items = queue.popitem(last=False)
                if self._has_to_wait(key):
                    queue[key] = items  # behind the others
                    self._held_back.setdefault(key, asyncio.get_running_loop().create_future())
                    continue
                self._let_through(key)
                if len(items) > (count := _fitting(items, room)):
                    queue[key], items = items[count:], items[:count]
                batch[key] = items
                sessions, room = sessions + 1, room - len(items)
        return batch

    async def _written_or_failed(self, batch: Mapping[Key, list[Item]]) -> None:
        """Write a batch; a mistake of ours fails those it is about, as nobody else would tell their publishers."""
        try:
            await self._write(batch)
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            note("queues of stored sessions", error)
            for items in batch.values():
                _all_done([item for item in items if not item[1].is_over], error)

    async def until_let_through(self, space: SessionNamespace, client: str) -> None:
        """Return when what waited for who was about to take a session had its turn, or after a while.

        Whoever comes by one name again and again would keep a session's publishers waiting for ever.
        """
        if (held := self._held_back.get((space, client))) is not None:
            await asyncio.wait({held}, timeout=_MOST_HELD_S)

    def _let_through(self, key: Key) -> None:
        if (held := self._held_back.pop(key, None)) is not None and not held.done():
            held.set_result(None)

    def _has_to_wait(self, key: Key) -> bool:
        """Somebody is about to take the session, or what came before is on its way to another worker."""
        space, client = key
        return key in self._sending or space.is_arriving(client)

    async def _write(self, batch: Mapping[Key, list[Item]]) -> None:
        """Commit a batch; what is refused because its session changed goes before what came meanwhile."""
        slices, writes, commits = Slices(_STEPS), list[_Write](), list[asyncio.Future[None]]()
        for key, items in batch.items():
            if (write := await self._begun(key, items)) is not None:
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
            if isinstance(problem, ChangedMeanwhileError) or may_be_kept(problem):  # twice is allowed, never not at all
                self._records.pop(write.key, None)
                self._take_again(write.key, await self._of_the_living(write.items))
                if write.attached is not None and not write.attached.is_over:
                    await self._looked_again(write.attached)
            else:
                was_refused = False
                try:
                    self._written(write, problem)
                except Exception as error:  # noqa: BLE001 - a mistake of ours is one session's
                    note(f"the queue of {write.key[1]}", error)
            await slices.step()
        if was_refused:
            await self._sleep(_AGAIN_S)

    async def _of_the_living(self, items: list[Item]) -> list[Item]:
        """Return what workers took that live; what others took fails."""
        senders = {pending.sender for _, pending in items}
        dead = {sender for sender in senders if sender and not await self._lives(sender)}
        for worker in dead:
            _all_done([item for item in items if item[1].sender == worker], WorkerLostError(worker=worker))
        return [item for item in items if item[1].sender not in dead]

    async def _lives(self, worker: str) -> bool:
        with contextlib.suppress(BirthmarkError):  # an engine that is away says nothing
            return await self._database.one(store.WORKER, id=worker) is not None
        return True

    def _take_again(self, key: Key, items: list[Item]) -> None:
        if items:
            self._waiting[key] = items + self._taken_out(key)

    def _failed(self, key: Key, items: Sequence[Item], problem: BaseException) -> None:
        """Nobody can tell about these; what came after them would overtake them when they are sent again."""
        _all_done(items, problem)
        _all_done(self._taken_out(key), problem)

    def _taken_out(self, key: Key) -> list[Item]:
        """Return what waits for a session, which waits no more."""
        self._let_through(key)
        return self._waiting.pop(key, None) or self._for_many.pop(key, None) or []

    async def _begun(self, key: Key, items: list[Item]) -> _Write | None:
        """Return what to write for a session; send it, and return None, where another worker has the session."""
        try:
            write = await self._prepared(key, items)
        except BirthmarkError as error:
            self._failed(key, items, error)
            return None
        if isinstance(write, str):
            own = [item for item in items if item[1].sender in {"", key[0].worker}]
            if len(own) < len(items):  # who sent the others looks for the session itself: two would wait for each other
                moved = ChangedMeanwhileError(what="The session")
                _all_done([item for item in items if item[1].sender not in {"", key[0].worker}], moved)
            if own:
                self._sending.add(key)
                self._spawn(self._send(write, key, own))
            return None
        return write

    def is_sending(self, space: SessionNamespace, client: str) -> bool:
        """Say whether messages for a session are on their way to another worker: what comes from one would wait."""
        return (space, client) in self._sending

    async def _send(self, owner: str, key: Key, items: list[Item]) -> None:
        """Let the worker that has a session queue messages; where it has it no more, they are taken again."""
        is_here, problem, first = False, None, items[0][0]
        line = self._lines.setdefault(first.principal or first.publisher, asyncio.Semaphore(_AT_ONCE))
        try:
            async with line:
                messages = encode_messages([message for message, _ in items])
                is_here = await self._ask(owner, key[0].name, key[1], messages)
        except (NobodyThereError, NoAnswerError):  # it may have them all the same: twice is allowed, never not at all
            await self._sleep(_AGAIN_S)
        except BirthmarkError as error:
            problem = error
        self._sending.discard(key)
        if problem is not None:
            self._failed(key, items, problem)
        elif is_here:
            _all_done(items, None)
        else:
            self._take_again(key, items)
        self._begin()

    async def _prepared(self, key: Key, items: list[Item]) -> _Write | str | None:
        """Return what to write for a session, or the worker that has it; None where there is none, or no room in it."""
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
        """Say whether what waits for clients may take more of the disk; in the log is when that changes."""
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
        for sender in sorted(senders):  # what a worker took that was declared dead since is nobody's any more
            changes.run(store.STILL_LIVES, expect=1, key_id=sender)
        for row in _rows(write, shared):
            changes.run(store.APPEND, space=space.name, client=client, at=now, **row)
        return changes

    def _away(self, record: SessionRecord, space: SessionNamespace) -> Statement:
        """A session that nobody has; or that this worker has not let go of yet."""
        return store.ADVANCE_AWAY if record.owner != space.worker else store.ADVANCE

    def _as_read(self, record: SessionRecord, space: SessionNamespace, client: str, tail: int) -> dict[str, Any]:
        seen: dict[str, Any] = {"key_space": space.name, "key_client": client, "tail": tail}
        seen |= {"key_epoch": record.epoch, "key_tail": record.tail}
        return seen if record.owner != space.worker else {**seen, "key_owner": space.worker, "cursor": record.cursor}

    def _kept_once(self, writes: Sequence[_Write]) -> tuple[Mapping[int, int], list[asyncio.Future[None]]]:
        """Submit each message that goes to several sessions; return its number by its identity, and the commit."""
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
        """A write of a session that is connected here was refused: it is somebody else's, or an answer was lost."""
        space = attached.space
        with contextlib.suppress(BirthmarkError):
            record = await space.record(attached.client)
            if record is None or (record.epoch, record.owner) != (attached.epoch, space.worker):
                space.fenced(attached)
            elif attached.outgoing is not None:
                attached.outgoing.tail = max(attached.outgoing.tail, record.tail)

    def _written(self, write: _Write, problem: BaseException | None) -> None:
        """A commit is durable, or nobody can tell."""
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
            self._failed(write.key, write.items, problem)
            if attached is not None:
                self._spawn(self._looked_again(attached))
        if attached is not None:
            attached.flow()


def _fitting(items: Sequence[Item], room: int) -> int:
    """Return how many go at once: as many as there is room for, but for what is too large together."""
    size = 0
    for count, (message, _) in enumerate(items[:room]):
        size += message.size if message.properties else len(message.payload)
        if count and size > _MOST_BYTES:
            return count
    return room


def _rows(write: _Write, shared: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the queue: what is kept once by its number, everything else as runs of messages."""
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
        pending.one_done(problem)
