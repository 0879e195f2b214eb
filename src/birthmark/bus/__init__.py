"""Events and requests between the parts of a server, and its workers: a port, and the adapter of one process.

What is committed reaches it by the outbox, after it is durable.
"""

from birthmark.bus.local import LocalBus
from birthmark.bus.ports import Bus, Done, NoAnswerError, NobodyThereError, Reply, Request

__all__ = ["Bus", "Done", "LocalBus", "NoAnswerError", "NobodyThereError", "Reply", "Request"]
