"""What has to happen to connections at their time, whoever sends them nothing: looked at every second."""

import heapq
from collections.abc import Iterator
from enum import Enum
from typing import Generic, Protocol, TypeVar
from weakref import ReferenceType, ref

from birthmark.net.mqtt_driver import MqttPump

LOOK_S = 1.0
_MOST = 1024


class TimedAction(Enum):
    """What is done."""

    ASK = "ask"
    """The authorizer is asked again."""
    END = "end"
    """Its authorizer let it in for so long."""
    KEY_ENDS = "key_ends"
    """It was opened with a key that lives for so long."""


class DueConnection(Protocol):
    """A connection with something due."""

    pump: MqttPump


C = TypeVar("C", bound=DueConnection)


class DeadlineQueue(Generic[C]):
    """Connections by when something is due; `now` and `at_s` are monotonic seconds."""

    def __init__(self) -> None:
        self._by_time: list[tuple[float, int, TimedAction, ReferenceType[C]]] = []
        self._count = 0
        self._most = _MOST

    def __len__(self) -> int:
        return len(self._by_time)

    def add(self, at_s: float, deed: TimedAction, connection: C) -> None:
        """Remember what is due; of connections that went, half of what is kept at most."""
        if len(self._by_time) >= self._most:
            self._by_time = [one for one in self._by_time if (known := one[3]()) is not None and not known.pump.is_over]
            heapq.heapify(self._by_time)
            self._most = max(_MOST, 2 * len(self._by_time))
        self._count += 1  # what is due together is never compared further
        heapq.heappush(self._by_time, (at_s, self._count, deed, ref(connection)))

    def pop(self, now: float) -> Iterator[tuple[C, TimedAction]]:
        """Yield and forget what is due by now, of connections that are still there."""
        while self._by_time and self._by_time[0][0] <= now:
            _, _, deed, known = heapq.heappop(self._by_time)
            if (connection := known()) is not None and not connection.pump.is_over:
                yield connection, deed
