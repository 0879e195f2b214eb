"""How much of one client's is not safe yet: beyond a bound it is not read until there is room."""

import asyncio
from collections.abc import Awaitable, Sequence

from birthmark.broker.model import Done
from birthmark.net.admission import Closed
from birthmark.net.pump import MqttPump

WINDOW = 100


class Acknowledging:
    """The messages of one connection that are not as safe as they have to be. The engine keeps PUBACKs in order."""

    __slots__ = ("_pump", "_room", "_unwritten")

    def __init__(self, pump: MqttPump) -> None:
        self._pump = pump
        self._unwritten = 0
        self._room: asyncio.Event | None = None

    def expect(self, ids: Sequence[int], count: int) -> Done:
        """Return what says that so many messages are safe, or are not; then those with QoS 1 are acknowledged."""
        self._unwritten += count

        def done(problem: BaseException | None) -> None:
            self._unwritten -= count
            if problem is None:
                if ids:
                    self._pump.ack_all(ids)
            else:
                self._pump.close(Closed.SERVER)  # the client sends again after it reconnects
            if self._room is not None and self._unwritten < WINDOW:
                self._room.set()
                self._room = None

        return done

    def room(self) -> Awaitable[None] | None:
        """Return what waits until fewer than `WINDOW` messages are not safe; None when there are."""
        if self._unwritten < WINDOW:
            return None
        if self._room is None:
            self._room = asyncio.Event()
        return _true(self._room)


async def _true(event: asyncio.Event) -> None:
    await event.wait()
