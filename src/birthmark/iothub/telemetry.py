"""Telemetry in: everything of a loop tick, and of the time the last write took, becomes one durable segment.

A message is acknowledged only when its segment is durable. If the write fails nothing is acknowledged and the
connections are closed, so that the devices send again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import store
from birthmark.iothub.model import Message
from birthmark.store import Changes, Database, to_micros

log = logging.getLogger(__name__)

KEEP = timedelta(days=1)
_MAX_PER_SEGMENT = 2000
_PRUNE_EVERY = 500

Outcome = Callable[[BirthmarkError | None], None]


class Intake:
    """One hub's way in."""

    def __init__(self, hub: str, database: Database, clock: Clock) -> None:
        self._hub = hub
        self._database = database
        self._clock = clock
        self._waiting: list[tuple[Message, Outcome]] = []
        self._task: asyncio.Task[None] | None = None
        self._written = 0
        self._listeners: set[Callable[[Sequence[Message]], None]] = set()

    def add(self, message: Message, done: Outcome) -> None:
        """Queue a message; `done` is called with None when it is durable, else with why not."""
        self._waiting.append((message, done))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    def listen(self, listener: Callable[[Sequence[Message]], None]) -> Callable[[], None]:
        """Have `listener` called with each durable segment's messages; return what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def settled(self) -> None:
        """Return when nothing waits."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MAX_PER_SEGMENT], self._waiting[_MAX_PER_SEGMENT:]
                messages = [message for message, _ in batch]
                error = await self._write(messages)
                for _, done in batch:
                    done(error)
                if error is None:
                    for listener in tuple(self._listeners):
                        listener(messages)
        finally:
            self._task = None

    async def _write(self, messages: Sequence[Message]) -> BirthmarkError | None:
        now = self._clock.now()
        body = msgspec.msgpack.encode(messages)
        changes = Changes().run(store.ADD_SEGMENT, hub=self._hub, at=to_micros(now), count=len(messages), body=body)
        self._written += 1
        if self._written % _PRUNE_EVERY == 1:
            changes.run(store.FORGET_SEGMENTS, before=to_micros(now - KEEP))
        try:
            await self._database.commit(changes)
        except BirthmarkError as error:
            log.warning("telemetry.not_written", extra={"hub": self._hub, "count": len(messages)})
            return error
        return None


def messages_of(body: bytes) -> list[Message]:
    """Return the messages of a segment."""
    return msgspec.msgpack.decode(body, type=list[Message])
