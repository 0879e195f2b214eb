"""Stream retention: deletes by age, and by size starting with the devices that sent the most.

By age, complete commits are deleted. By size, the oldest messages of heavy devices are removed; other messages keep
their index, so positions remain valid. Rows without remaining messages are deleted. The sequence number up to which
this was done is stored (`_THINNED`), with the bytes that remain below it. When those reach half of the total, or no
device is heavy, the oldest commits are deleted regardless of the sender.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from birthmark.broker import store
from birthmark.broker.chunked_deletes import portion_of
from birthmark.broker.rules.stream_partitions_and_positions import (
    BEGINNING,
    Positions,
    cut,
    key_of,
    partition_of,
    seq_of,
    through,
)
from birthmark.store import Changes, Database
from birthmark.store.database import Row

_AT_ONCE = 256
_ROWS = 16
TRIMMED, _THINNED = "", " thinned"
_SEQ, _BYTES = 0, 1  # the two numbers of `_THINNED`, each in place of a partition
T = TypeVar("T")


class LastCommit(NamedTuple):
    """End of a stream after its last commit."""

    seq: int = 0
    at: int = 0
    upto: int = 0
    totals: Positions = BEGINNING
    """Number of messages that each partition has had."""


class Frontier(NamedTuple):
    """Sequence number up to which only messages of light devices remain, and their size in bytes."""

    seq: int
    kept: int


def whole_commits(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the first rows that fit into one delete commit, limited to complete stream commits.

    At least one commit is returned. The last stream commit in `rows` must be complete.
    """
    part = portion_of(rows)
    if len(part) == len(rows):
        return rows
    last = part[-1]["seq"]
    if rows[len(part)]["seq"] == last and rows[0]["seq"] != last:  # cut within a commit: use the previous one
        last = max(row["seq"] for row in part if row["seq"] != last)
    return [row for row in rows if row["seq"] <= last]


class StreamRetention(Generic[T]):
    """Retention of a stream; `device_of` returns the device of a message."""

    def __init__(self, name: str, kind: type[T], database: Database, device_of: Callable[[T], str]) -> None:
        self._name = name
        self._database = database
        self._device_of = device_of
        messages: Any = list[kind | None]  # type: ignore[valid-type] # the stream's own type of message
        self._decode: Callable[[bytes], list[T | None]] = msgspec.msgpack.Decoder(messages).decode
        self._encode = msgspec.msgpack.Encoder().encode

    async def frontier(self) -> Frontier:
        """Return the frontier of the last thinning."""
        rows = await self._database.all(store.GET_POSITIONS, stream=self._name, grp=_THINNED)
        known = {row["partition"]: row["position"] for row in rows}
        return Frontier(known.get(_SEQ, 0), known.get(_BYTES, 0))

    async def trimmed(self) -> int:
        """Return the sequence number up to which everything is deleted."""
        rows = await self._database.all(store.GET_POSITIONS, stream=self._name, grp=TRIMMED)
        return max((seq_of(row["position"]) for row in rows if row["partition"] == 0), default=0)

    async def by_age(self, before: int, newest: LastCommit) -> None:
        """Delete the commits before a time."""
        while rows := await self._oldest():
            commits = {row["seq"]: (row["seq"], row["at"], 1) for row in rows}
            last = cut(tuple(commits.values()), newest.seq, before, 0)
            if last is None:
                break
            await self._drop(whole_commits([row for row in rows if row["seq"] <= last]))

    async def by_size(self, keep_bytes: int, newest: LastCommit, heavy: AbstractSet[int]) -> int:
        """Delete data above the size limit, first that of the `heavy` devices (keys); return the retained bytes."""
        while (kept := await self.kept(newest)) > keep_bytes:
            frontier = await self.frontier()
            too_much, may_thin = kept - keep_bytes, heavy and frontier.seq < newest.seq - 1
            if may_thin and frontier.kept <= keep_bytes // 2:
                await self._thin(too_much, newest, heavy, frontier)
                continue
            if may_thin:  # drop some of the light devices' oldest before the next heavy
                too_much = min(too_much, frontier.kept - keep_bytes // 4)
            if not await self._drop_oldest(too_much, newest):
                break
        return kept

    async def nearly_all(self, while_: Changes) -> None:
        """Delete everything while `while_` holds, except a last portion that can be part of another commit."""
        while True:
            rows = await self._oldest()
            part = whole_commits(rows)
            if len(part) == len(rows) < _AT_ONCE:
                return
            await self._drop(part, while_)

    async def kept(self, newest: LastCommit) -> int:
        """Return the number of retained bytes."""
        frontier = await self.frontier()
        first = max(frontier.seq, await self.trimmed()) + 1
        rows = await self._database.all(store.OLDEST, stream=self._name, first=first, limit=_AT_ONCE)
        of_first = [row for row in rows if row["seq"] == rows[0]["seq"]]
        begins = min((row["upto"] for row in of_first), default=newest.upto) - sum(row["size"] for row in of_first)
        return frontier.kept + (newest.upto - begins if rows else 0)

    async def _oldest(self) -> Sequence[Row]:
        first = await self.trimmed() + 1
        return await self._database.all(store.OLDEST, stream=self._name, first=first, limit=_AT_ONCE)

    async def _drop_oldest(self, too_much: int, newest: LastCommit) -> bool:
        """Delete complete commits until `too_much` bytes are freed; return False if none can be deleted."""
        rows = [row for row in await self._oldest() if row["seq"] < newest.seq]
        if not rows:
            return False
        gone, last = 0, rows[0]["seq"]
        for row in rows:
            if gone >= too_much and row["seq"] != last:
                break
            gone, last = gone + row["size"], row["seq"]
        await self._drop(whole_commits([row for row in rows if row["seq"] <= last]))
        return True

    async def _drop(self, rows: Sequence[Row], while_: Changes | None = None) -> None:
        """Delete rows that are complete commits and fit into one delete commit."""
        last, frontier = rows[-1]["seq"], await self.frontier()
        place: dict[str, Any] = {"stream": self._name, "grp": TRIMMED, "partition": 0, "position": through(last)[0]}
        changes = Changes() if while_ is None else Changes().merge(while_)
        changes.run(store.TRIM, stream=self._name, last=last).run(store.SET_POSITION, **place)
        if frontier.seq:
            below = sum(row["size"] for row in rows if row["seq"] <= frontier.seq)
            self._note(changes, Frontier(frontier.seq, max(0, frontier.kept - below)))
        await self._database.commit(changes)

    async def _thin(self, too_much: int, newest: LastCommit, heavy: AbstractSet[int], frontier: Frontier) -> None:
        """Remove messages of heavy devices from the following rows until `too_much` bytes are freed."""
        first = max(frontier.seq, await self.trimmed()) + 1
        wanted: dict[str, Any] = {"stream": self._name, "first": first}
        sizes = await self._database.all(store.OLDEST, **wanted, limit=_ROWS)
        if len(sizes) == _ROWS and sizes[0]["seq"] != sizes[-1]["seq"]:  # whole commits
            sizes = [row for row in sizes if row["seq"] != sizes[-1]["seq"]]
        count = len(whole_commits([row for row in sizes if row["seq"] < newest.seq]))
        rows = await self._database.all(store.SEGMENTS_FROM, **wanted, limit=count) if count else []
        changes, gone, kept, last = Changes(), 0, frontier.kept, newest.seq - 1
        partitions = {partition_of(key) for key in heavy}
        for row in rows:
            if gone >= too_much and row["seq"] != last:
                break
            last, body = row["seq"], row["body"]
            await asyncio.sleep(0)  # a row of megabytes takes milliseconds: yield to others
            left = self._without(body, heavy) if row["partition"] in partitions else body
            gone, kept = gone + len(body) - len(left), kept + len(left)
            place: dict[str, Any] = {"stream": self._name, "seq": row["seq"], "partition": row["partition"]}
            if not left:
                changes.run(store.DROP_SEGMENT, **place)
            elif left != body:
                changes.run(store.THIN_SEGMENT, body=left, **{f"key_{name}": value for name, value in place.items()})
        await self._database.commit(self._note(changes, Frontier(last, kept)))

    def _without(self, body: bytes, heavy: AbstractSet[int]) -> bytes:
        """Return a row's body without the messages of some devices; empty if none remain."""
        messages = self._decode(body)
        left = [None if one is None or key_of(self._device_of(one)) in heavy else one for one in messages]
        return self._encode(left) if any(one is not None for one in left) else b""

    def _note(self, changes: Changes, frontier: Frontier) -> Changes:
        for partition, position in ((_SEQ, frontier.seq), (_BYTES, frontier.kept)):
            changes.run(store.SET_POSITION, stream=self._name, grp=_THINNED, partition=partition, position=position)
        return changes
