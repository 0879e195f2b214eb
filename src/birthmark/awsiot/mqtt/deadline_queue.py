"""Deadlines of connections, independent of incoming packets; processed every second."""

import heapq
from collections.abc import Iterator
from enum import Enum
from typing import Generic, Protocol, TypeVar
from weakref import ReferenceType, ref

from birthmark.net.mqtt_driver import MqttDriver

LOOK_S = 1.0
_MOST = 1024


class TimedAction(Enum):
    """Action at a deadline."""

    ASK = "ask"
    """Ask the authorizer again."""
    END = "end"
    """End the connection after the time that its authorizer allowed."""
    KEY_ENDS = "key_ends"
    """End the connection when its credentials expire."""


class DueConnection(Protocol):
    """A connection with deadlines."""

    driver: MqttDriver


C = TypeVar("C", bound=DueConnection)


class DeadlineQueue(Generic[C]):
    """Connections by deadline; `now` and `at_s` are monotonic seconds."""

    def __init__(self) -> None:
        self._by_time: list[tuple[float, int, TimedAction, ReferenceType[C]]] = []
        self._count = 0
        self._most = _MOST

    def __len__(self) -> int:
        return len(self._by_time)

    def add(self, at_s: float, deed: TimedAction, connection: C) -> None:
        """Add a deadline; entries of closed connections are limited to half of the queue."""
        if len(self._by_time) >= self._most:
            self._by_time = [
                one for one in self._by_time if (known := one[3]()) is not None and not known.driver.is_over
            ]
            heapq.heapify(self._by_time)
            self._most = max(_MOST, 2 * len(self._by_time))
        self._count += 1  # equal due times compare no further field
        heapq.heappush(self._by_time, (at_s, self._count, deed, ref(connection)))

    def pop(self, now: float) -> Iterator[tuple[C, TimedAction]]:
        """Yield and remove the due deadlines of open connections."""
        while self._by_time and self._by_time[0][0] <= now:
            _, _, deed, known = heapq.heappop(self._by_time)
            if (connection := known()) is not None and not connection.driver.is_over:
                yield connection, deed
