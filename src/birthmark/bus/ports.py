"""Bus between packages and workers: the port, its messages and its errors.

A worker is one process of a server; an embedded server has a single worker, which is its own only peer. Events are
delivered to all subscribers; a request is delivered to one worker, which replies. Both are frozen tagged structs, so
that an adapter can send them to another machine.

Transport is in the adapters; semantics are in the `domain_events.py` and `ports.py` of each package.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from birthmark.errors import UnavailableError
from birthmark.store.event_base_and_codec import E, Event

ASK_S = 5.0


class BusAwayError(UnavailableError):
    """NATS does not respond."""

    code = "bus.away"
    message = "NATS at {where} does not respond"
    cause = "NATS at {where} does not respond: {reason}."
    fix = "Start NATS. If the server runs on one machine, you can use the server's own NATS instead: `{command}`."
    command: str = "birthmark serve --workers 2 --bus ''"
    where: str
    reason: str


class WorkerUnreachableError(UnavailableError):
    """The worker has ended."""

    code = "bus.nobody_there"
    message = "The worker {worker} has ended"
    cause = "The worker {worker} has ended, or its lease has expired. Nothing was done."
    fix = "Retry: another worker takes over the sessions of the ended worker. Devices reconnect automatically."
    worker: str


class NoAnswerError(UnavailableError):
    """A worker did not respond."""

    code = "bus.no_answer"
    message = "The worker {worker} did not respond"
    cause = "The worker {worker} did not respond to {request}: {reason}. The request may have been completed."
    fix = (
        "Check the result, and retry if necessary. If the error persists, run `export BIRTHMARK_LOG=INFO`, restart "
        "the server and check its log."
    )
    reason: str
    request: str
    worker: str


class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """A reply; each subclass has its own tag."""


class EmptyReply(Reply, frozen=True, tag="bus.done"):
    """Reply without content."""


R = TypeVar("R", bound=Reply)


class BusRequest(msgspec.Struct, Generic[R], frozen=True, tag_field="kind"):
    """A request to one worker, with a reply of type `R`; each subclass has its own tag."""


class Members(Protocol):
    """The workers of an installation, from its database."""

    @property
    def is_fresh(self) -> bool:
        """Whether this worker may use its cached state."""
        ...

    async def others(self) -> Sequence[str]:
        """Return the workers that are not declared dead, without this one."""
        ...

    async def is_alive(self, worker: str) -> bool:
        """Return whether a worker is not dead."""
        ...

    async def mark(self, worker: str) -> int | None:
        """Require a worker to read missed commits before its next heartbeat.

        Return the mark, or None if it is dead. Its earlier state is invalid once a lease duration has passed.
        """
        ...

    async def has_read(self, worker: str, mark: int) -> bool:
        """Return whether a worker has read up to a mark, or is dead."""
        ...


class Bus(Protocol):
    """Events and requests within a worker, and between workers.

    An exception of a handler is logged and has no other effect. Event handlers run in the event loop and return
    quickly. An event older than the last delivered one of the same type and entity is dropped.
    """

    @property
    def worker(self) -> str:
        """Name of this worker."""
        ...

    def on(self, kind: type[E], handler: Callable[[E], None]) -> None:
        """Subscribe `handler` to events of `kind`, both announced and committed.

        Events of this worker's commits are delivered at least once and in order, also after a restart. They are
        delivered before the committer gets its result, unless the result of the commit is unknown.
        """
        ...

    def announce(self, event: Event) -> None:
        """Send an event to every worker, including this one; delivery is not guaranteed."""
        ...

    async def confirm(self, event: Event) -> None:
        """Send an event to every worker.

        Return when each live worker has handled it or its lease has expired.
        """
        ...

    async def catch_up(self) -> None:
        """Deliver missed events of other workers' commits; then call the `on_missed` handlers."""
        ...

    def on_missed(self, handler: Callable[[], Awaitable[None]]) -> None:
        """Subscribe `handler` to possibly missed announcements; committed events are delivered automatically."""
        ...

    def serve(self, kind: type[BusRequest[R]], handler: Callable[[Any], Awaitable[R]]) -> None:
        """Register the handler for requests of `kind` to this worker; one handler per kind."""
        ...

    async def ask(self, worker: str, request: BusRequest[R], timeout_s: float = ASK_S) -> R:
        """Return the reply of `worker`, or raise the `BirthmarkError` of its handler.

        Raise `NobodyThereError` immediately if the worker is not live. Raise `NoAnswerError` on timeout or an internal
        error of the handler.
        """
        ...

    def tell(self, worker: str, batch: Sequence[BusRequest[R]]) -> None:
        """Send requests to `worker`, handled in sequence; it logs errors, and delivery is not guaranteed."""
        ...
