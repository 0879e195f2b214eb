"""PUBACKs in the order of the messages, whatever is durable first ([MQTT-4.6.0-2]); and a bound for what is not yet."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence

from birthmark.broker.model import Done
from birthmark.net.admission import Closed
from birthmark.net.pump import MqttPump

WINDOW = 100


class _Burst:
    """What came together: packet ids, and whether they may be acknowledged."""

    __slots__ = ("code", "ids", "is_done")

    def __init__(self, ids: Sequence[int], code: int) -> None:
        self.ids = ids
        self.code = code
        self.is_done = False


class Acknowledging:
    """The messages of one connection that are not acknowledged."""

    __slots__ = ("_bursts", "_pump", "_room", "_unwritten")

    def __init__(self, pump: MqttPump) -> None:
        self._pump = pump
        self._bursts: deque[_Burst] | None = None
        self._unwritten = 0
        self._room: asyncio.Event | None = None

    def expect(self, ids: Sequence[int]) -> Done:
        """Return what says that these are durable, or are not; then they are acknowledged in their turn."""
        burst = self._enter(ids, 0)

        def done(problem: BaseException | None) -> None:
            if problem is not None:
                self._pump.close(Closed.SERVER)  # the client sends again after it reconnects
            burst.is_done = True
            self._flush()

        return done

    def refuse(self, packet_id: int, code: int) -> None:
        """Acknowledge a message with a refusal, in its turn."""
        self._enter((packet_id,), code).is_done = True
        self._flush()

    def _enter(self, ids: Sequence[int], code: int) -> _Burst:
        burst = _Burst(ids, code)
        if self._bursts is None:
            self._bursts = deque()
        self._bursts.append(burst)
        self._unwritten += len(ids)
        return burst

    def _flush(self) -> None:
        bursts = self._bursts
        while bursts and bursts[0].is_done:
            burst = bursts.popleft()
            self._unwritten -= len(burst.ids)
            if burst.code:
                self._pump.ack(burst.ids[0], burst.code)
            else:
                self._pump.ack_all(burst.ids)
        if self._room is not None and self._unwritten < WINDOW:
            self._room.set()
            self._room = None

    def room(self) -> Awaitable[None] | None:
        """Return what waits until fewer than `WINDOW` messages are not acknowledged; None when there are."""
        if self._unwritten < WINDOW:
            return None
        if self._room is None:
            self._room = asyncio.Event()
        return _true(self._room)


async def _true(event: asyncio.Event) -> None:
    await event.wait()
