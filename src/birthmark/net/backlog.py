"""What connections have left to do when their slice of the loop's time is used up: a little at each turn, in turn.

A peer may send faster than its packets are decided on, in a read, a record or a packet as it likes. So nobody works
longer than `SLICE_S` at once; the rest is added here, and all who wait here have `TURN_S` together between two looks of
the loop at its sockets. Whoever asks for little is never here and is served within a turn or two of the loop.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

SLICE_S = 0.001
TURN_S = 0.004

now = time.perf_counter  # what work costs is measured by the real clock, whatever time a server is told


class Backlog:
    """Of one event loop."""

    _of_loops: ClassVar["WeakKeyDictionary[asyncio.AbstractEventLoop, Backlog]"] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_called = False

    @classmethod
    def running(cls) -> "Backlog":
        """Return the one of the running loop."""
        loop = asyncio.get_running_loop()
        if (known := cls._of_loops.get(loop)) is None:
            known = cls._of_loops[loop] = cls()
        return known

    def add(self, go_on: Callable[[], None]) -> None:
        """Have `go_on` called behind all that wait; it works for a slice at most."""
        self._waiting.append(go_on)
        self._call()

    def _call(self) -> None:
        """Have one turn called, and never a second: what is added meanwhile has its turn in it, or in the next."""
        if self._waiting and not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        until = now() + TURN_S
        while self._waiting:
            go_on = self._waiting.popleft()
            try:
                go_on()
            except Exception:  # the others are not to wait for ever
                log.exception("net.bug")
            if now() > until:
                break
        self._is_called = False
        self._call()
