"""Readers of the event stream: one link reads one partition, at the speed of its credit.

Events are sent settled: Event Hubs does not redeliver, and its clients keep their positions themselves.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from birthmark.amqp.sender_link import SenderLink
from birthmark.broker.ports import MessageStream
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.event_positions import EventPosition, PositionKind
from birthmark.iothub.wire.amqp_events import render_event

log = logging.getLogger(__name__)

_BATCH = 256
_BATCH_BYTES = 128 * 1024
_LOOK_S = 5.0


class ReaderConnection(Protocol):
    """The connection of a reader."""

    @property
    def can_write(self) -> bool: ...

    def wrote(self) -> None: ...

    async def wait_for_turn(self) -> None: ...


class StreamTail:
    """New messages of a stream, watched once for all its readers."""

    def __init__(self, stream: MessageStream[TelemetryMessage]) -> None:
        self._stream = stream
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._readers = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Watch the stream while a reader is there."""
        self._readers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def changed(self) -> None:
        """Wait until new messages may be available; returns without one after some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._changed.wait()

    async def _watch(self) -> None:
        while True:
            try:
                if await self._stream.tail(await self._stream.end(), _LOOK_S):
                    self._changed.set()
                    self._changed = asyncio.Event()
            except BirthmarkError as error:  # readers look again by themselves
                log.warning("events.not_watched", extra={"reason": error.explain_cause()})
                await asyncio.sleep(1.0)


class EventReader:
    """Sends a partition's events on a link until the link or the connection ends."""

    def __init__(
        self,
        link: SenderLink,
        stream: MessageStream[TelemetryMessage],
        tail: StreamTail,
        connection: ReaderConnection,
        partition: int,
    ) -> None:
        self.link = link
        self.partition = partition
        self._stream = stream
        self._tail = tail
        self._connection = connection
        self._may_send = asyncio.Event()
        self._after = 0

    async def start(self, position: EventPosition) -> None:
        """Find the start position."""
        match position.kind:
            case PositionKind.LATEST:
                self._after = (await self._stream.end())[self.partition]
            case PositionKind.TIME:
                self._after = (await self._stream.find(position.value * 1000))[self.partition]
            case PositionKind.NUMBER:
                number = position.value + (not position.is_inclusive)
                self._after = await self._stream.find_number(self.partition, max(0, number))
            case PositionKind.POSITION:
                self._after = max(0, position.value - position.is_inclusive)

    def resume(self) -> None:
        """Look for credit again."""
        self._may_send.set()

    async def run(self, ended: Callable[[BirthmarkError], None]) -> None:
        """Send events; `ended` is called if the stream cannot be read any more."""
        with self._tail.reading():
            try:
                while True:
                    await self._send_page()
            except BirthmarkError as error:
                ended(error)

    async def _send_page(self) -> None:
        room = min(self.link.capacity, _BATCH) if self._connection.can_write else 0
        if not room:
            self._may_send.clear()
            if not (self.link.capacity and self._connection.can_write):  # not while it was cleared
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._may_send.wait()
            return
        changed = self._tail.changed()
        page = await self._stream.read_partition(self.partition, self._after, room, most_bytes=_BATCH_BYTES)
        payloads = [render_event(position, number, one) for position, number, one in page.items]
        sent = self.link.send_many(payloads, settled=True) if payloads else 0
        if sent < len(payloads):
            self._after = page.items[sent - 1][0] if sent else self._after
        else:
            self._after = page.next
        if payloads:
            changed.close()
            self._connection.wrote()
            await self._connection.wait_for_turn()
        elif page.is_end:
            if self.link.is_drain:
                self.link.complete_drain()
                self._connection.wrote()
            await changed
        else:
            changed.close()


def is_partition(number: int) -> bool:
    """Return whether a stream has a partition of this number."""
    return number < PARTITIONS
