"""Interface between a worker's broker, its namespaces and their parts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from birthmark.broker.bus_requests import DeliverTo, LiveMessage
from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.model import SessionRecord
from birthmark.broker.ports import Watch
from birthmark.broker.publisher_backpressure import InFlightBudget
from birthmark.broker.session_queue_writer import SessionQueueWriter
from birthmark.bus.ports import BusRequest, NoAnswerError, R, WorkerUnreachableError
from birthmark.store import Changes, Database

_SMALL_BYTES, _FEW_CLIENTS = 8 * 1024, 64
_MOST_BYTES = 128 * 1024  # maximum of an AWS message
Sent = tuple[LiveMessage, str]
"""A message and its owner."""


class WorkerForwarder:
    """Forwards live messages to other workers in batches; `ask` sends a request to another worker."""

    def __init__(
        self, ask: Callable[[str, DeliverTo], Awaitable[None]], spawn: Callable[[Awaitable[None]], None]
    ) -> None:
        self.in_flight = InFlightBudget()
        self._ask = ask
        self._spawn = spawn
        self._waiting: dict[str, dict[str | None, list[Sent]]] = {}  # by worker; by owner, None for several owners

    def send(self, worker: str, message: LiveMessage, owner: str) -> None:
        """Forward a message of `owner` soon; `underway` reports whether the window has space."""
        size = len(message.message)
        by_itself = size > _SMALL_BYTES or len(message.clients) > _FEW_CLIENTS or owner in self.in_flight
        self.in_flight.add(owner, size)
        if worker not in self._waiting:
            self._waiting[worker] = {None: []}
            self._spawn(self._flush(worker))
        self._waiting[worker].setdefault(owner if by_itself else None, []).append((message, owner))

    async def _flush(self, worker: str) -> None:
        """Send the queued messages; each owner's messages keep their order."""
        for sent in self._waiting.pop(worker).values():
            for some in _portions(sent):
                self._spawn(self._sent(worker, some))

    async def _sent(self, worker: str, some: Sequence[Sent]) -> None:
        try:
            await self._ask(worker, DeliverTo(tuple([letter for letter, _ in some])))
        except (WorkerUnreachableError, NoAnswerError):  # its clients count as disconnected
            pass
        finally:
            for letter, owner in some:
                self.in_flight.remove(owner, len(letter.message))


def _portions(sent: Sequence[Sent]) -> list[list[Sent]]:
    """Split messages into requests; NATS limits a request to 1 MB."""
    found: list[list[Sent]] = []
    left = 0
    for one in sent:
        size = len(one[0].message)
        if left < size or not found:
            found.append([])
            left = _MOST_BYTES
        found[-1].append(one)
        left -= size
    return found


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
    watch: Watch | None
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
