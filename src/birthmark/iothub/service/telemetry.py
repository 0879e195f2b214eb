"""Telemetry in: everything of a loop tick, and of the time the last write took, becomes one durable segment.

A message is acknowledged only when its segment is durable. If the write fails nothing is acknowledged and the
connections are closed, so that the devices send again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

import msgspec

from birthmark.clock import Clock
from birthmark.iothub import store
from birthmark.iothub.model import Hub, Message
from birthmark.store import Changes, Database, to_micros

log = logging.getLogger(__name__)

KEEP = timedelta(days=1)
_MAX_PER_SEGMENT = 2000
_MAX_SEGMENT_BYTES = 4 * 1024 * 1024
_PRUNE_EVERY = 500
_PAGE = 100

Outcome = Callable[[BaseException | None], None]


class Intake:
    """One hub's way in."""

    def __init__(self, hub: str, database: Database, clock: Clock) -> None:
        self._hub = hub
        self._database = database
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Sequence[Message], int, Outcome]] = []
        self._is_writing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._segments = 0

    def add(self, messages: Sequence[Message], size: int, done: Outcome) -> None:
        """Queue messages of `size` bytes; `done` is called with None when they are durable, else with why not."""
        self._waiting.append((messages, size, done))
        if not self._is_writing:
            self._is_writing = True
            self._idle.clear()
            self._loop.call_soon(self._write)

    async def settled(self) -> None:
        """Return when nothing waits."""
        await self._idle.wait()

    def _write(self) -> None:
        batch = self._next_batch()
        messages = [message for some, _, _ in batch for message in some]
        now = self._clock.now()
        body = msgspec.msgpack.encode(messages)
        changes = Changes().run(store.ADD_SEGMENT, hub=self._hub, at=to_micros(now), count=len(messages), body=body)
        self._segments += 1
        if self._segments % _PRUNE_EVERY == 1:
            changes.run(store.FORGET_SEGMENTS, before=to_micros(now - KEEP))
        outcomes = [done for _, _, done in batch]
        self._database.submit(changes).add_done_callback(partial(self._written, outcomes, len(messages)))

    def _next_batch(self) -> Sequence[tuple[Sequence[Message], int, Outcome]]:
        """Take what fits into a segment, at least one burst."""
        taken = count = size = 0
        while taken < len(self._waiting) and count < _MAX_PER_SEGMENT and size < _MAX_SEGMENT_BYTES:
            count += len(self._waiting[taken][0])
            size += self._waiting[taken][1]
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    def _written(self, outcomes: Sequence[Outcome], count: int, commit: asyncio.Future[None]) -> None:
        if self._waiting:
            self._write()
        else:
            self._is_writing = False
            self._idle.set()
        if (problem := commit.exception()) is not None:
            log.warning("telemetry.not_written", extra={"hub": self._hub, "count": count})
        for done in outcomes:
            done(problem)


def messages_of(body: bytes) -> list[Message]:
    """Return the messages of a segment."""
    return msgspec.msgpack.decode(body, type=list[Message])


class Telemetry:
    """The messages of all hubs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._intakes: dict[str, Intake] = {}

    def intake(self, hub: Hub) -> Intake:
        """Return the hub's way in for telemetry."""
        if (intake := self._intakes.get(hub.name)) is None:
            intake = self._intakes[hub.name] = Intake(hub.name, self._database, self._clock)
        return intake

    async def settled(self) -> None:
        """Return when all telemetry taken so far is durable or refused."""
        for intake in self._intakes.values():
            await intake.settled()

    async def latest(self, hub: Hub, device_id: str | None, limit: int) -> list[Message]:
        """Return the latest messages, oldest first, of one device or of all."""
        newest_first: list[Message] = []
        name = "" if device_id is None else device_id
        before = 2**62
        while len(newest_first) < limit:
            rows = await self._database.all(store.SEGMENTS_BEFORE, hub=hub.name, before=before, limit=_PAGE)
            if not rows:
                break
            for row in rows:
                if name.encode() in row["body"]:  # else none of its messages is this device's: nothing to decode
                    messages = reversed(messages_of(row["body"]))
                    newest_first += (m for m in messages if device_id in {None, m.device_id})
            before = rows[-1]["seq"]
        return newest_first[:limit][::-1]
