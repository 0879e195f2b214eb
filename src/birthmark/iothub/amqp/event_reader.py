"""Readers of the event stream: one link reads one partition, at the speed of its credit.

Events are sent settled: Event Hubs does not redeliver, and its clients keep their positions themselves.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Symbol, Timestamp
from birthmark.broker.ports import MessageStream
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS, Positions
from birthmark.iothub.amqp.shared_watch import SharedWatch
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.event_positions import EventFilterError, EventPosition, PositionKind
from birthmark.iothub.wire.amqp_events import render_event

_BATCH = 256
_BATCH_BYTES = 64 * 1024
LOOK_S = 5.0
"""Interval at which a reader looks for messages, besides the events that tell it."""
_CHECK_S = 10.0
"""Interval at which a reader checks that it may still read, besides the events that tell it."""


class ReaderConnection(Protocol):
    """The connection of a reader."""

    @property
    def can_write(self) -> bool: ...

    def monotonic(self) -> float: ...

    def millis(self) -> int: ...

    def wrote(self) -> None: ...

    async def wait_for_turn(self) -> None: ...


def watch_stream(stream: MessageStream[TelemetryMessage]) -> SharedWatch:
    """Return the watch of a stream for all its readers."""
    end: Positions | None = None

    async def wait() -> bool:
        nonlocal end
        if end is not None and not await stream.tail(end, LOOK_S):
            return False
        end = await stream.end()
        return True

    return SharedWatch(wait, "the watch of a telemetry stream")


class EventReader:
    """Sends a partition's events on a link until the link or the connection ends."""

    def __init__(
        self,
        link: SenderLink,
        stream: MessageStream[TelemetryMessage],
        watch: SharedWatch,
        connection: ReaderConnection,
        partition: int,
        *,
        check: Callable[[], Awaitable[None]],
        count: Callable[[int], None],
        with_metrics: bool = False,
    ) -> None:
        """`check` raises the `BirthmarkError` for which the reader must end; `count` takes numbers of sent events.

        With `with_metrics`, each event tells the newest event of the partition.
        """
        self.link = link
        self.partition = partition
        self._stream = stream
        self._watch = watch
        self._connection = connection
        self._check = check
        self._count = count
        self._checked_at = connection.monotonic()
        self._with_metrics = with_metrics
        self._wake = asyncio.Event()
        self._after = 0

    async def start(self, position: EventPosition) -> None:
        """Find the start position. Raise `EventFilterError` for one after the next message."""
        match position.kind:
            case PositionKind.LATEST:
                self._after = (await self._stream.end())[self.partition]
            case PositionKind.TIME:
                self._after = (await self._stream.find(position.value * 1000))[self.partition]
            case PositionKind.NUMBER:
                number = position.value + (not position.is_inclusive)
                if number > (end := (await self._stream.partition_state(self.partition)).next_number):
                    raise EventFilterError(text=f"sequence number {position.value} (the last one is {end - 1})")
                self._after = await self._stream.find_number(self.partition, max(0, number))
            case PositionKind.POSITION:
                if position.value > (last := (await self._stream.end())[self.partition]):
                    raise EventFilterError(text=f"offset {position.value} (the last one is at most {last})")
                self._after = max(0, position.value - position.is_inclusive)

    def resume(self) -> None:
        """Look for credit and messages again."""
        self._wake.set()

    def check_soon(self) -> None:
        """Check at once whether the reader may still read."""
        self._checked_at = -_CHECK_S
        self._wake.set()

    async def run(self, ended: Callable[[Exception], None]) -> None:
        """Send events; `ended` is called with the error if the reader cannot continue."""
        with self._watch.waking(self._wake):
            try:
                while True:
                    self._wake.clear()  # before looking, so that no change is missed
                    if (now := self._connection.monotonic()) - self._checked_at >= _CHECK_S:
                        self._checked_at = now
                        await self._check()
                    if not await self._send_page():
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(LOOK_S):
                                await self._wake.wait()
            except Exception as error:  # noqa: BLE001 - any error: the peer must learn that its link has ended
                ended(error)

    async def _send_page(self) -> bool:
        """Send what the credit allows; return whether more may follow at once."""
        link = self.link
        if not self._connection.can_write:
            return False
        if not (room := min(link.capacity, _BATCH)):
            self._complete_drain()
            return False
        page = await self._stream.read_partition(self.partition, self._after, room, most_bytes=_BATCH_BYTES)
        metrics = await self._metrics() if self._with_metrics and page.items else None
        payloads = [render_event(position, number, one, metrics) for position, number, one in page.items]
        sent = link.send_many(payloads, settled=True) if payloads else 0
        self._count(sent)
        if sent < len(payloads):
            self._after = page.items[sent - 1][0] if sent else self._after
        else:
            self._after = page.next
        if payloads:
            self._connection.wrote()
            await self._connection.wait_for_turn()
        elif page.is_end:
            self._complete_drain()
            return False
        return True

    def _complete_drain(self) -> None:
        if self.link.is_drain:
            self.link.complete_drain()
            self._connection.wrote()

    async def _metrics(self) -> dict[Any, Any]:
        """Return the delivery annotations that describe the newest event of the partition."""
        state = await self._stream.partition_state(self.partition)
        return {
            Symbol("last_enqueued_sequence_number"): state.next_number - 1,
            Symbol("last_enqueued_offset"): str(state.last_position),
            Symbol("last_enqueued_time_utc"): Timestamp(state.last_micros // 1000),
            Symbol("runtime_info_retrieval_time_utc"): Timestamp(self._connection.millis()),
        }


def is_partition(number: int) -> bool:
    """Return whether a stream has a partition of this number."""
    return number < PARTITIONS
