"""Events and requests within a server and between its workers: the port, and its in-process adapter.

Events of commits arrive through the outbox, after they are durable.
"""

from typing import TYPE_CHECKING

from birthmark.bus.local import LocalBus
from birthmark.bus.ports import Bus, BusAwayError, BusRequest, EmptyReply, NoAnswerError, Reply, WorkerUnreachableError

if TYPE_CHECKING:
    from birthmark.bus.nats import NatsBus

__all__ = [
    "Bus",
    "BusAwayError",
    "BusRequest",
    "EmptyReply",
    "LocalBus",
    "NoAnswerError",
    "Reply",
    "WorkerUnreachableError",
    "shared",
]


def shared(bus: Bus) -> "NatsBus | None":
    """Return the bus if it connects workers.

    Return None for the in-process bus, which never imports the NATS library.
    """
    if type(bus) is LocalBus:
        return None
    from birthmark.bus.nats import NatsBus  # noqa: PLC0415 - see above

    return bus if isinstance(bus, NatsBus) else None
