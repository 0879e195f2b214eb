"""Messages into the queues of stored sessions: gathered, committed together, acknowledged when they are durable.

All that comes while a commit runs goes into the next one. What one publisher sends keeps its order, also where a
session changed hands meanwhile and its messages have to be taken there: they go before what came later.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from birthmark.broker import store
from birthmark.broker.model import Done, Message, Record, encode_messages
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.store import Changes, Database

if TYPE_CHECKING:
    from birthmark.broker.attached import Attached
    from birthmark.broker.space import Space

log = logging.getLogger(__name__)

MAX_ROW_MESSAGES = 256
MAX_ROW_BYTES = 64 * 1024
_MAX_KNOWN = 4096
_AGAIN_S = 0.01
Key = tuple["Space", str]


class Pending:
    """What one publisher sent at once; `done` is called when it is in every queue it has to be in."""

    __slots__ = ("_done", "_left", "_problem")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._left = 1
        self._problem: BaseException | None = None

    def expect(self) -> None:
        """One more thing has to be durable first."""
        self._left += 1

    def one_done(self, problem: BaseException | None = None) -> None:
        """One thing is, or never will be."""
        self._problem = self._problem or problem
        self._left -= 1
        if not self._left:
            self._done(self._problem)

    def written(self, commit: asyncio.Future[None]) -> None:
        """One thing is that a commit was about."""
        self.one_done(commit.exception())


Item = tuple[Message, Pending]


@dataclass(slots=True)
class _Write:
    """One session's part of a commit: `first` is the position of the first of `items`."""

    key: Key
    attached: "Attached | None"
    items: list[Item]
    first: int
    record: Record | None
    cursor: int | None = None
    """Up to where its queue is emptied by the way."""


class Appends:
    """The queues of this worker's publishers."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        spawn: Callable[[Awaitable[None]], object],
    ) -> None:
        self._database = database
        self._now = now
        self._spawn = spawn
        self._waiting: dict[Key, list[Item]] = {}
        self._records: dict[Key, Record] = {}  # of sessions nobody has, as they were last seen
        self._is_running = False
        self._last_id = 0

    def start_after(self, last_id: int) -> None:
        """Give no message an id that was used."""
        self._last_id = last_id

    def add(self, space: "Space", client: str, message: Message, pending: Pending) -> None:
        """Queue a message for a client."""
        pending.expect()
        key = (space, client)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [(message, pending)]
        else:
            waiting.append((message, pending))
        if not self._is_running:
            self._is_running = True
            self._spawn(self._run())  # begins with the next turn of the loop, with all that comes until then

    def forget(self, space: "Space", client: str) -> None:
        """A session changed hands."""
        self._records.pop((space, client), None)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, {}
                if not await self._write(batch):
                    await asyncio.sleep(_AGAIN_S)
        finally:
            self._is_running = False

    async def _write(self, batch: Mapping[Key, list[Item]]) -> bool:
        """Commit what can be; say False when all of it has to wait for somebody who is about to take a session."""
        writes: list[_Write] = []
        later: dict[Key, list[Item]] = {}
        for key, items in batch.items():
            space, client = key
            if space.is_arriving(client):
                later[key] = items
                continue
            try:
                write = await self._prepared(key, items)
            except BirthmarkError as error:
                _all_done(items, error)
                continue
            if write is not None:
                writes.append(write)
        shared, keeping = self._kept_once(writes)
        commits = [self._database.submit(self._changes(write, shared)) for write in writes]
        if commits:
            await asyncio.wait([*commits, *keeping])
        not_kept = keeping[0].exception() if keeping else None
        for write, commit in zip(writes, commits, strict=True):
            problem = commit.exception() or not_kept
            if isinstance(problem, ChangedMeanwhileError):
                self._records.pop(write.key, None)
                if write.attached is not None and not write.attached.is_over:
                    await self._looked_again(write.attached)
                later[write.key] = write.items
            else:
                self._written(write, problem)
        for key, items in later.items():
            self._waiting[key] = items + self._waiting.get(key, [])
        return bool(writes) or not later

    async def _prepared(self, key: Key, items: list[Item]) -> _Write | None:
        """Return what to write for a session; None where there is none any more, or no room in it."""
        space, client = key
        attached = space.live.get(client)
        record: Record | None = None
        if attached is not None and attached.outgoing is not None:
            tail, depth = attached.outgoing.tail, attached.outgoing.depth
        else:
            attached = None
            record = self._records.get(key) or await space.record(client)
            if record is None or record.is_expired(self._now()):
                _all_done(items, None)
                return None
            tail, depth = record.tail, record.tail - record.cursor
        room = max(0, space.rules.max_waiting - depth)
        if len(items) > room:
            space.dropped += len(items) - room
            space.observer.overrun(client, space.rules.max_waiting)
            _all_done(items[room:], None)
            items = items[:room]
        return _Write(key, attached, items, tail + 1, record) if items else None

    def _changes(self, write: _Write, shared: Mapping[int, int]) -> Changes:
        space, client = write.key
        tail, now = write.first + len(write.items) - 1, self._now()
        changes = Changes()
        if write.attached is not None and write.attached.outgoing is not None:
            attached, cursor = write.attached, write.attached.outgoing.cursor
            changes.run(store.ADVANCE, expect=1, tail=tail, cursor=cursor, key_tail=write.first - 1, **attached.fence)
            if space.is_unsettled(attached):
                write.cursor = cursor
                changes.run(store.DROP_SETTLED, space=space.name, client=client, upto=cursor)
        elif write.record is not None:
            seen: dict[str, Any] = {"key_epoch": write.record.epoch, "key_tail": write.record.tail}
            name: dict[str, Any] = {"key_space": space.name, "key_client": client}
            changes.run(store.ADVANCE_AWAY, expect=1, tail=tail, **name, **seen)
        for row in _rows(write, shared):
            changes.run(store.APPEND, space=space.name, client=client, at=now, **row)
        return changes

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
                    self._last_id = max(self._last_id + 1, now << 8)
                    numbers[id(message)] = self._last_id
                    changes.run(store.KEEP_MESSAGE, id=self._last_id, body=encode_messages([message]))
        return numbers, [self._database.submit(changes)] if numbers else []

    async def _looked_again(self, attached: "Attached") -> None:
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
        elif attached is not None:
            self._spawn(self._looked_again(attached))
        _all_done(write.items, problem)
        if attached is not None:
            attached.flow()


def _rows(write: _Write, shared: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the queue: what is kept once by its number, everything else as runs of messages."""
    last = write.first - 1
    run: list[Message] = []
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
            size += len(message.payload)
    if run:
        yield {"last": last, "count": len(run), "message": None, "body": encode_messages(run)}


def _all_done(items: Sequence[Item], problem: BaseException | None) -> None:
    for _, pending in items:
        pending.one_done(problem)
