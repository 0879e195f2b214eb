"""Interface between a worker's broker, its namespaces and their parts."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Protocol

from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.model import SessionRecord
from birthmark.broker.ports import PresenceListener
from birthmark.broker.publisher_backpressure import InFlightBudget
from birthmark.broker.session_queue_writer import SessionQueueWriter
from birthmark.broker.worker_forwarder import WorkerForwarder
from birthmark.bus.ports import BusRequest, R
from birthmark.store import Changes, Database


class BrokerContext(Protocol):
    """The broker of this worker."""

    database: Database
    worker: str
    is_alone: bool
    appends: SessionQueueWriter
    across: WorkerForwarder
    in_flight: InFlightBudget
    unwritten: InFlightBudget
    unsettled: set[ConnectedSession]
    watch: PresenceListener | None
    deleting: asyncio.Semaphore
    """Turn of a session whose queue is deleted."""

    @property
    def is_fresh(self) -> bool:
        """Whether this worker may use its cached state: its lease guarantees that no other worker changed it."""
        ...

    async def wait_until_fresh(self) -> None:
        """Wait until `is_fresh`. Raise `WorkerLostError`."""
        ...

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        ...

    def since(self) -> int:
        """Return the time from which expirations count.

        A recent clock change expires nothing that began before it.
        """
        ...

    def spawn(self, waiting: Awaitable[None]) -> None:
        """Run an awaitable to completion, independent of its caller; log its exceptions."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for the given number of seconds."""
        ...

    def due_at(self, timestamp: int | None) -> None:
        """Schedule the next check for due actions."""
        ...

    def settle_later(self, attached: ConnectedSession) -> None:
        """Schedule the write of the session's queue cursor."""
        ...

    async def vacate(self, space: SessionNamespace, client: str, record: SessionRecord, *, ends: bool) -> None:
        """Wait until the worker that holds a session has released it, or is dead and its session is free."""
        ...

    async def ask_others(self, request: BusRequest[R]) -> list[R]:
        """Return the replies of the other live workers; workers that do not reply are omitted."""
        ...

    async def announce_shapes(self, space: SessionNamespace, shapes: Iterable[str] = ()) -> None:
        """Wait until every worker matches filters of these shapes and has cleared its route cache."""
        ...


class CountedNamespace(SessionNamespace, Protocol):
    """A namespace that counts its stored sessions."""

    def condition(self, client: str) -> Changes:
        """Return the write guard for a commit that could recreate the session of a deleted client."""
        ...

    def count_stored_session(self) -> None:
        """Count a session whose row was created after its connection."""
        ...
