"""Events and requests between the parts of a server, and its workers: a port, and the adapter of one process.

What is committed reaches it by the outbox, after it is durable.
"""

from typing import TYPE_CHECKING

from birthmark.bus.local import LocalBus
from birthmark.bus.ports import Bus, BusAwayError, BusRequest, EmptyReply, NoAnswerError, NobodyThereError, Reply

if TYPE_CHECKING:
    from birthmark.bus.nats import NatsBus

__all__ = [
    "Bus",
    "BusAwayError",
    "BusRequest",
    "EmptyReply",
    "LocalBus",
    "NoAnswerError",
    "NobodyThereError",
    "Reply",
    "shared",
]


def shared(bus: Bus) -> "NatsBus | None":
    """Return a bus that leads to other workers; None for that of one process, which never loads the library of NATS."""
    if type(bus) is LocalBus:
        return None
    from birthmark.bus.nats import NatsBus  # noqa: PLC0415 - see above

    return bus if isinstance(bus, NatsBus) else None
