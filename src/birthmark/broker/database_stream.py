"""Message stream in the database, with one durable commit per batch.

A batch has all messages of a loop tick and of the last write's duration. The writer numbers its commits: one more than
the highest number. If another worker used the number first, it reads the end again and retries. It does the same if a
response was lost; messages may then be duplicated.

Readers read rows page by page and wait for a signal from the committer. A slow reader costs ingest nothing, and detects
a gap if trimming overtook it.
"""

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from birthmark.broker import store
from birthmark.broker.model import Done
from birthmark.broker.ports import PartitionPage, PartitionState, StreamPage
from birthmark.broker.rules.stream_partitions_and_positions import (
    MAX_MESSAGES,
    PARTITIONS,
    Positions,
    first_unread,
    key_of,
    may_name,
    partition_of,
    position_of,
    render_names,
    seq_of,
    through,
)
from birthmark.broker.stream_retention import LastCommit, StreamRetention
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.store import Changes, Database, may_be_kept
from birthmark.store.database import Row
from birthmark.supervised_tasks import note

MAX_BURST = MAX_MESSAGES // 2
MAX_COMMIT_BYTES = 4 * 1024 * 1024
NAMED_EVERY = 256
MAX_NAMED = 64 * 1024
BEFORE = 0
"""Partition of all messages that version 0.1.0 stored."""
_ATTEMPTS = 20
_LOOK_S = 0.25  # for other workers' writes
_ROWS = 16
MAX_PAGE_BYTES = 1024 * 1024
"""Maximum stored size of a page of the newest messages.

Beyond it, fewer messages than requested are returned.
"""
_LOOKS = 32
_HEAVY = 8
"""Divisor of the retained size: devices above that share are trimmed first."""
_MAX = 1 << 50
_MORE = tuple(f"more_{name}" for name in store.TOTALS)
log = logging.getLogger(__name__)


def _end_columns(end: LastCommit) -> dict[str, Any]:
    """Return the columns of an end of a stream."""
    return dict(zip(store.END, (end.seq, end.at, end.upto, *end.totals), strict=True))


def _end_of(row: Row) -> LastCommit:
    return LastCommit(row["seq"], row["at"], row["upto"], tuple([row[name] for name in store.TOTALS]))


class FromDevice(Protocol):
    """Message interface that a stream requires."""

    @property
    def device_id(self) -> str: ...

    @property
    def enqueued_micros(self) -> int: ...


T = TypeVar("T", bound=FromDevice)
_Burst = tuple[int, Sequence[T], int, Done]


class _Names:
    """Index of the devices in a stream: each partition has a row with names every `NAMED_EVERY` commits."""

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._commits = 0
        self._is_whole = False  # data from before this process is unknown
        self._owed: dict[int, bytes] = {}

    def note(self, keys: Sequence[int]) -> bool:
        """Record the devices of a commit; return whether its rows carry names."""
        if len(self._keys) <= MAX_NAMED:
            self._keys.update(keys)
        self._commits += 1
        if self._commits >= NAMED_EVERY:
            is_told = self._is_whole and len(self._keys) <= MAX_NAMED
            for partition in range(PARTITIONS):
                own = [key for key in self._keys if partition_of(key) == partition]
                before = self._owed.get(partition)  # no row since the reset was due
                if not is_told or before == b"":
                    self._owed[partition] = b""
                elif own:
                    self._owed[partition] = (before or b"") + render_names(own)
            self._keys, self._commits, self._is_whole = set(), 0, True
        return bool(self._owed)

    def due(self, partition: int, keys: Sequence[int]) -> bytes | None:
        """Return the names for a partition's row in a commit of these devices."""
        owed = self._owed.pop(partition, None)
        return owed and owed + render_names([key for key in keys if partition_of(key) == partition])


class SqlStream(Generic[T]):
    """A `Stream` of msgspec structs with a `device_id`, stored in the table `segments`."""

    def __init__(self, name: str, kind: type[T], database: Database, clock: Clock) -> None:
        self.name = name
        self.commits = self.messages = self.kept_commits = self.kept_bytes = 0
        self._database = database
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._encode = msgspec.msgpack.Encoder().encode
        messages: Any = list[kind | None]  # type: ignore[valid-type] # the stream's type; None for removed messages
        self._trimming = StreamRetention[T](name, kind, database, lambda message: message.device_id)
        self._sent: Counter[int] = Counter()  # known stored bytes by device key
        self._decode: Callable[[bytes], list[T | None]] = msgspec.msgpack.Decoder(messages).decode
        self._waiting: OrderedDict[int, deque[_Burst[T]]] = OrderedDict()  # by sender, next turn first
        self._is_writing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._looking: asyncio.Task[None] | None = None
        self._end: LastCommit | None = None  # None: must be read
        self._closed: BaseException | None = None
        self._names = _Names()
        self._woken: asyncio.Future[None] | None = None

    # ---- in

    def close(self, problem: BaseException) -> None:
        """Reject new messages and positions with an error; write those that were accepted."""
        self._closed = problem

    def append(self, key: int, items: Sequence[T], size: int, done: Done) -> None:
        if self._closed is not None:
            self._loop.call_soon(done, self._closed)
            return
        if (line := self._waiting.get(key)) is None:
            line = self._waiting[key] = deque()
        line.append((key, items, size, done))
        if not self._is_writing:
            self._is_writing = True
            self._idle.clear()
            self._loop.call_soon(self._write)

    def append_changes(self, key: int, items: Sequence[T]) -> Changes:
        """Return the changes that append messages of one device, as part of a larger commit.

        `append` must not be used on such a stream, because it numbers its commits itself.
        """
        body = self._encode(list(items))
        changes = Changes().run(store.ADD_END, stream=self.name, **_end_columns(LastCommit()))
        more: dict[str, Any] = dict.fromkeys(_MORE, 0) | {_MORE[partition_of(key)]: len(items)}
        changes.run(store.MOVE_END, expect=1, stream=self.name, now=self._clock.micros(), size=len(body), **more)
        row: dict[str, Any] = {"partition_0": partition_of(key), "count_0": len(items), "names_0": None, "body_0": body}
        return changes.run(store.ADD_AT_THE_END[1], stream=self.name, **row)

    async def settled(self) -> None:
        await self._idle.wait()

    def _write(self) -> None:
        batch = self._next_batch()
        if (problem := self._database.find_disk_full_error()) is not None:
            self._loop.call_soon(self._answer, batch, problem)
        elif self._end is None:
            self._looking = self._loop.create_task(self._look_and_write(batch, 0))
        else:
            self._commit(batch, self._end, 0)

    def _next_batch(self) -> list[_Burst[T]]:
        """Take the bursts of the next commit, at least one.

        Senders take turns, because one may send a lot.
        """
        waiting = self._waiting
        batch: list[_Burst[T]] = []
        count = size = 0
        while waiting and count < MAX_BURST and size < MAX_COMMIT_BYTES:
            key, line = waiting.popitem(last=False)
            batch.append(burst := line.popleft())
            count += len(burst[1])
            size += burst[2]
            if line:
                waiting[key] = line
        return batch

    async def _look_and_write(self, batch: list[_Burst[T]], attempt: int) -> None:
        try:
            end = await self._newest()
            if not self._database.sharing.is_alone:
                await self._store_end(end)
        except BirthmarkError as error:
            self._answer(batch, error)
        except Exception as error:  # noqa: BLE001 - any error: the next batch may succeed
            note("the stream", error)
            self._answer(batch, error)
        else:
            self._commit(batch, end, attempt)

    async def _store_end(self, end: LastCommit) -> None:
        """Write the row with the end of the stream; a single server writes none, or its row is outdated."""
        state = _end_columns(end)
        changes = Changes().run(store.ADD_END, stream=self.name, **state)
        await self._database.commit(changes.run(store.RAISE_END, key_stream=self.name, least=end.seq, **state))

    def _commit(self, batch: list[_Burst[T]], end: LastCommit, attempt: int) -> None:
        try:
            self._submit(batch, end, attempt)
        except Exception as error:  # noqa: BLE001 - as above
            note("the stream", error)
            self._forget_end()
            self._loop.call_soon(self._answer, batch, error)

    def _forget_end(self) -> None:
        """Re-read the end of the stream before the next commit, because the last result is unknown."""
        self._end = None
        self._names = _Names()

    def _submit(self, batch: list[_Burst[T]], end: LastCommit, attempt: int) -> None:
        parts: list[list[T]] = [[] for _ in range(PARTITIONS)]
        for key, items, size_of_burst, _ in batch:
            parts[key % PARTITIONS].extend(items)  # `partition_of` inlined: avoids a call per burst
            self._sent[key] += size_of_burst
        keys = [burst[0] for burst in batch]
        is_named = self._names.note(keys)
        seq, at, upto = end.seq + 1, max(end.at, self._clock.micros()), end.upto
        row: dict[str, Any] = {"stream": self.name}
        place = 0
        for partition, messages in enumerate(parts):
            if messages:
                body = self._encode(messages)
                upto += len(body)
                row[f"partition_{place}"] = partition
                row[f"count_{place}"] = len(messages)
                row[f"names_{place}"] = self._names.due(partition, keys) if is_named else None
                row[f"body_{place}"] = body
                place += 1
        counts = [len(messages) for messages in parts]
        size = upto - end.upto
        self._end = LastCommit(seq, at, upto, tuple(map(int.__add__, end.totals, counts)))
        if self._database.sharing.is_alone:
            changes = Changes().run(store.ADD_SEGMENTS[place], **row, **_end_columns(self._end))
        else:  # with other writers only the commit knows the end
            more: dict[str, Any] = dict(zip(_MORE, counts, strict=True))
            changes = Changes().run(
                store.MOVE_END, expect=1, stream=self.name, now=self._clock.micros(), size=size, **more
            )
            changes.run(store.ADD_AT_THE_END[place], **row)
        commit = self._database.submit(changes)
        count = sum(counts)
        commit.add_done_callback(partial(self._written, batch, attempt, count, size))

    def _written(
        self, batch: list[_Burst[T]], attempt: int, count: int, size: int, commit: asyncio.Future[None]
    ) -> None:
        problem = commit.exception()
        if problem is not None:
            self._forget_end()
            if (isinstance(problem, ChangedMeanwhileError) or may_be_kept(problem)) and attempt < _ATTEMPTS:
                self._looking = self._loop.create_task(self._look_and_write(batch, attempt + 1))
                return
        else:
            self.commits += 1
            self.messages += count
            self.kept_commits += 1
            self.kept_bytes += size
        self._answer(batch, problem)

    def _answer(self, batch: list[_Burst[T]], problem: BaseException | None) -> None:
        if problem is not None:
            batch = [*batch, *self._behind(batch)]
        if self._waiting:
            self._write()
        else:
            self._is_writing = False
            self._idle.set()
        if problem is None:
            if self._woken is not None:
                self._wake()
        elif self._database.find_disk_full_error() is None:  # whose log is on that disk, too
            count = sum(len(burst[1]) for burst in batch)
            log.warning("stream.not_written", extra={"stream": self.name, "count": count})
        for _, _, _, done in batch:
            try:
                done(problem)
            except Exception as error:  # noqa: BLE001 - the others need the error, too
                note("the stream", error)

    def _behind(self, batch: list[_Burst[T]]) -> list[_Burst[T]]:
        """Take the bursts queued behind failed ones: their senders resend the failed ones first."""
        keys = dict.fromkeys(burst[0] for burst in batch)
        return [burst for key in keys for burst in self._waiting.pop(key, ())]

    # ---- out

    async def read(
        self, after: Positions, limit: int, device: str | None = None, *, most_bytes: int | None = None
    ) -> StreamPage[T]:
        trimmed = await self._trimming.trimmed()
        thinned = (await self._trimming.frontier()).seq
        newest = (await self._newest()).seq  # before the rows: later messages must not count as read
        is_gap = any(0 < one < through(max(trimmed, thinned))[0] for one in after)
        reached, found, kept = list(after), list[T](), 0
        first = max(seq_of(min(after)), trimmed + 1)
        for _ in range(_LOOKS):
            rows = await self._rows_from(first, device)
            for row in rows:
                partition, seq = row["partition"], row["seq"]
                each = len(row["body"]) // max(row["count"], 1)
                for place, message in self._of(row, device, first_unread(seq, reached[partition])):
                    if len(found) == limit or (most_bytes is not None and kept > most_bytes):
                        reached[partition] = position_of(seq, place) - 1
                        return StreamPage(found, tuple(reached), is_end=False, is_gap=is_gap)
                    found.append(message)
                    kept += each
                reached[partition] = max(reached[partition], through(seq)[0])
            if len(rows) < _ROWS:
                everything = [max(one, through(newest)[0]) for one in reached]
                return StreamPage(found, tuple(everything), is_end=True, is_gap=is_gap)
            first = rows[-1]["seq"]
            await asyncio.sleep(0)  # yield: SQLite reads in the loop
        return StreamPage(found, tuple(reached), is_end=False, is_gap=is_gap)

    async def latest(self, limit: int, device: str | None = None) -> list[T]:
        if device is None:
            found = await self._newest_of_all(limit)
        else:
            partition = partition_of(key_of(device))
            found = await self._newest_of(device, partition, limit)
            if len(found) < limit and partition != BEFORE:
                found += await self._newest_of(device, BEFORE, limit - len(found))
        # In commit order, because workers' clocks differ; within one commit of one worker, by its clock.
        found.sort(key=(lambda one: one[0]) if device is not None else (lambda one: (one[0], one[1].enqueued_micros)))
        return [message for _, message in found[-limit:]]

    async def read_partition(self, partition: int, after: int, limit: int, *, most_bytes: int) -> PartitionPage[T]:
        newest = (await self._newest()).seq  # before the rows: later messages must not count as read
        found, kept = list[tuple[int, int, T]](), 0
        first = max(seq_of(after), await self._trimming.trimmed() + 1)
        rows = await self._rows_of(partition, first, _ROWS)
        for row in rows:
            seq, number = row["seq"], row[store.TOTALS[partition]] - row["count"]
            each = len(row["body"]) // max(row["count"], 1)
            for place, message in self._of(row, None, first_unread(seq, after)):
                if len(found) == limit or kept > most_bytes:
                    return PartitionPage(found, found[-1][0], is_end=False)
                found.append((position_of(seq, place), number + place, message))
                kept += each
            after = max(after, through(seq)[partition])
        if len(rows) < _ROWS:
            return PartitionPage(found, max(after, through(newest)[partition]), is_end=True)
        return PartitionPage(found, after, is_end=False)

    async def find_number(self, partition: int, number: int) -> int:
        low, high = await self._trimming.trimmed() + 1, (await self._newest()).seq + 1
        while low < high:  # the first commit through which the partition has had more messages than `number`
            middle = (low + high) // 2
            row = await self._database.one(store.SEGMENT_AT, stream=self.name, first=middle)
            if row is None or row[store.TOTALS[partition]] > number:
                high = middle
            else:
                low = row["seq"] + 1
        rows = await self._rows_of(partition, low, 1)
        if not rows:
            return through(low - 1)[partition]
        place = number - (rows[0][store.TOTALS[partition]] - rows[0]["count"])
        return position_of(rows[0]["seq"], max(0, place)) - 1

    async def partition_state(self, partition: int) -> PartitionState:
        total = (await self._newest()).totals[partition]
        rows = await self._rows_of(partition, await self._trimming.trimmed() + 1, 1)
        if not rows:
            return PartitionState(total, total, 0, 0)
        last = await self.find_number(partition, total - 1)
        page = await self.read_partition(partition, last, 1, most_bytes=1)
        position, _, message = page.items[0] if page.items else (last + 1, 0, None)
        at = rows[0]["at"] if message is None else message.enqueued_micros
        return PartitionState(rows[0][store.TOTALS[partition]] - rows[0]["count"], total, position, at)

    async def _rows_of(self, partition: int, first: int, limit: int) -> Sequence[Row]:
        wanted: dict[str, Any] = {"stream": self.name, "partition": partition, "first": first, "limit": limit}
        return await self._database.all(store.SEGMENTS_OF_ONE, **wanted)

    async def find(self, timestamp: int) -> Positions:
        low, high = await self._trimming.trimmed() + 1, (await self._newest())[0] + 1
        while low < high:
            middle = (low + high) // 2
            row = await self._database.one(store.SEGMENT_AT, stream=self.name, first=middle)
            if row is None or row["at"] >= timestamp:
                high = middle
            else:
                low = row["seq"] + 1
        return through(low - 1)

    async def end(self) -> Positions:
        return through((await self._newest())[0])

    async def tail(self, after: Positions, wait_s: float) -> bool:
        if self._woken is None:
            self._woken = self._loop.create_future()
        woken = self._woken  # before the read: no commit falls between the two
        if (await self._newest())[0] > seq_of(min(after)):
            return True
        if self._database.sharing.is_alone:
            return bool((await asyncio.wait((woken,), timeout=wait_s))[0])
        until = self._loop.time() + wait_s
        while (left := until - self._loop.time()) > 0:  # other workers' writes wake no waiter here
            if (await asyncio.wait((woken,), timeout=min(left, _LOOK_S)))[0]:
                return True
            if (await self._newest()).seq > seq_of(min(after)):
                return True
        return False

    async def position(self, group: str) -> Positions | None:
        rows = await self._database.all(store.GET_POSITIONS, stream=self.name, grp=group)
        known = {row["partition"]: row["position"] for row in rows}
        return tuple([known.get(partition, 0) for partition in range(PARTITIONS)]) if known else None

    async def set_position(self, group: str, position: Positions) -> None:
        if self._closed is not None:
            raise self._closed
        await self._database.commit(self.position_changes(group, position))

    def position_changes(self, group: str, position: Positions) -> Changes:
        """Return the changes that commit the position of a group, as part of a larger commit."""
        changes = Changes()
        for partition, one in enumerate(position):
            changes.run(store.SET_POSITION, stream=self.name, grp=group, partition=partition, position=one)
        return changes

    async def trim(self, before: int, keep_bytes: int) -> int:
        newest = await self._newest()
        await self._trimming.by_age(before, newest)
        heavy = {key for key, sent in self._sent.items() if sent > keep_bytes // _HEAVY}
        self.kept_bytes = await self._trimming.by_size(keep_bytes, newest, heavy)
        self.kept_commits = newest.seq - await self._trimming.trimmed()
        self._forget_sent()
        return self.kept_bytes

    def _forget_sent(self) -> None:
        """Scale down the sent bytes per device to the bytes retained."""
        total = sum(self._sent.values())
        if total > self.kept_bytes or len(self._sent) > MAX_NAMED:
            share = min(1.0, self.kept_bytes / total)
            self._sent = Counter({key: int(sent * share) for key, sent in self._sent.most_common(MAX_NAMED // 2)})

    # ---- inside

    def _wake(self) -> None:
        woken, self._woken = self._woken, None
        if woken is not None:
            woken.set_result(None)

    def _of(self, row: Row, device: str | None, start: int = 0) -> Iterator[tuple[int, T]]:
        """Yield the messages of a row with their indexes, of one device or of all."""
        if start >= row["count"] or (device is not None and device.encode() not in row["body"]):
            return  # nothing to decode
        for place, message in enumerate(self._decode(row["body"])):
            if message is not None and place >= start and device in {None, message.device_id}:
                yield place, message

    async def _newest(self) -> LastCommit:
        row = await self._database.one(store.NEWEST, stream=self.name)
        return LastCommit() if row is None else _end_of(row)

    async def _rows_from(self, first: int, device: str | None) -> Sequence[Row]:
        """Return rows in commit order; for a device, those of its partition and of version 0.1.0."""
        if device is None:
            return await self._database.all(store.SEGMENTS_FROM, stream=self.name, first=first, limit=_ROWS)
        two = {"partition": partition_of(key_of(device)), "other": BEFORE}
        return await self._database.all(store.SEGMENTS_OF_TWO, stream=self.name, first=first, limit=_ROWS, **two)

    async def _newest_of_all(self, limit: int) -> list[tuple[int, T]]:
        """Return the newest messages of all devices, each with the sequence number of its commit."""
        found: list[tuple[int, T]] = []
        seen, kept = (_MAX, 0), 0
        while rows := await self._database.all(store.SEGMENTS_BACK, stream=self.name, last=seen[0], limit=_ROWS):
            for row in rows:
                here = (row["seq"], row["partition"])
                if (len(found) >= limit or kept > MAX_PAGE_BYTES) and here[0] != seen[0]:
                    return found  # complete commits: another partition of the last may have newer data
                if here < seen:
                    found += [(row["seq"], message) for _, message in self._of(row, None)]
                    seen, kept = here, kept + len(row["body"])
            if len(rows) < _ROWS:
                break
            await asyncio.sleep(0)
        return found

    async def _newest_of(self, device: str, partition: int, wanted: int) -> list[tuple[int, T]]:
        """Return a device's newest messages of one partition, each with the sequence number of its commit.

        Rows at regular intervals name the devices since the previous such row. Only the rows after the last of them are
        always read; earlier rows are read only if their interval names this device.
        """
        found: list[tuple[int, T]] = []
        kept = 0
        key, until, may_be_there = key_of(device), _MAX, True
        last = _MAX
        place: dict[str, Any] = {"stream": self.name, "partition": partition}
        while len(found) < wanted and kept < MAX_PAGE_BYTES:
            row = await self._database.one(store.NAMED_BEFORE, **place, last=last)
            first = 1 if row is None else row["seq"] + 1
            if may_be_there:
                some, size = await self._between(device, first, until, place, wanted - len(found))
                found, kept = found + some, kept + size
            if row is None:
                break
            until, last, may_be_there = row["seq"], row["seq"] - 1, may_name(row["names"], key)
        return found

    async def _between(
        self, device: str, first: int, last: int, values: dict[str, Any], wanted: int
    ) -> tuple[list[tuple[int, T]], int]:
        found: list[tuple[int, T]] = []
        kept = 0
        while len(found) < wanted and kept < MAX_PAGE_BYTES and first <= last:
            rows = await self._database.all(store.SEGMENTS_OF_ONE_BACK, **values, first=first, last=last, limit=_ROWS)
            for row in rows:
                some = [(row["seq"], message) for _, message in self._of(row, device)]
                found, kept = found + some, kept + len(some) * len(row["body"]) // row["count"]
                last = row["seq"] - 1
            if len(rows) < _ROWS:
                break
            await asyncio.sleep(0)
        return found, kept
