"""Events between the parts of a server, after they are durable. In-process here; the outbox is its source."""

from birthmark.bus.local import LocalBus

__all__ = ["LocalBus"]
