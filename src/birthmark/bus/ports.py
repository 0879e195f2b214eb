"""What rooms and workers tell and ask each other: the port, its messages and its refusals.

A worker is one process of a server; embedded there is one, which is its own only peer. Events go to everyone who
listens; requests go to one worker, and are answered. Both are frozen tagged structs, so that an adapter may send them
to another machine.

Not here: how they travel (an adapter each), what they mean (the `events.py` and `ports.py` of each room).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from birthmark.errors import UnavailableError
from birthmark.store.events import E, Event

ASK_S = 5.0


class BusAwayError(UnavailableError):
    """NATS does not respond."""

    code = "bus.away"
    message = "NATS at {where} does not respond"
    cause = "NATS at {where} does not respond: {reason}."
    fix = "Start it, or use the server's own NATS, for one machine: `{command}`."
    command: str = "birthmark serve --workers 2 --bus ''"
    where: str
    reason: str


class NobodyThereError(UnavailableError):
    """The worker has ended."""

    code = "bus.nobody_there"
    message = "The worker {worker} has ended"
    cause = "The worker {worker} has ended, or its lease has expired. Nothing was done."
    fix = "Retry: another worker takes over its sessions. Devices reconnect automatically."
    worker: str


class NoAnswerError(UnavailableError):
    """A worker did not respond."""

    code = "bus.no_answer"
    message = "The worker {worker} did not respond"
    cause = "The worker {worker} did not respond to {request}: {reason}. The request may have been carried out."
    fix = "Retry. If the error persists, check the log: start the server with `export BIRTHMARK_LOG=INFO`."
    reason: str
    request: str
    worker: str


class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """An answer. Subclasses have a tag of their own."""


class EmptyReply(Reply, frozen=True, tag="bus.done"):
    """The answer to what only has to be done."""


R = TypeVar("R", bound=Reply)


class BusRequest(msgspec.Struct, Generic[R], frozen=True, tag_field="kind"):
    """A question to one worker, answered by an `R`. Subclasses have a tag of their own."""


class Members(Protocol):
    """The workers of an installation, as its database knows them."""

    @property
    def is_fresh(self) -> bool:
        """Whether this one may act on what it remembers."""
        ...

    async def others(self) -> Sequence[str]:
        """Name the workers that nobody has declared dead, without this one."""
        ...

    async def lives(self, worker: str) -> bool:
        """Say whether a worker is not dead."""
        ...

    async def mark(self, worker: str) -> int | None:
        """Have a worker read what the others committed before it says again that it lives; None when it is dead.

        What it remembered before counts for nothing when a lease has passed.
        """
        ...

    async def has_read(self, worker: str, mark: int) -> bool:
        """Say whether it has, or is dead."""
        ...


class Bus(Protocol):
    """Events and requests between the parts of a worker, and between workers.

    A handler that fails is told to the log, and ends nothing else. Handlers of events return soon; they run in the
    loop. An event that is older than one that was handed on, of the same kind and entity, is dropped.
    """

    @property
    def worker(self) -> str:
        """Name this worker."""
        ...

    def on(self, kind: type[E], handler: Callable[[E], None]) -> None:
        """Call `handler` with each event of `kind`: those that are announced, and those of commits.

        Those of this worker's commits come at least once and in their order, also after a restart; and before who
        committed is answered, unless nobody can tell whether the commit was kept.
        """
        ...

    def announce(self, event: Event) -> None:
        """Tell every worker, this one too; it may be lost."""
        ...

    async def confirm(self, event: Event) -> None:
        """Tell every worker; return when each that lives has handled it, or its lease has run out."""
        ...

    async def catch_up(self) -> None:
        """Hand on what others committed and could not tell this worker; then call who asked for it by `on_missed`."""
        ...

    def on_missed(self, handler: Callable[[], Awaitable[None]]) -> None:
        """Call `handler` when announcements may have been missed; what was committed is handed on by itself."""
        ...

    def serve(self, kind: type[BusRequest[R]], handler: Callable[[Any], Awaitable[R]]) -> None:
        """Let `handler` answer the requests of `kind` that come to this worker; one for each kind."""
        ...

    async def ask(self, worker: str, request: BusRequest[R], timeout_s: float = ASK_S) -> R:
        """Return the answer of `worker`, or raise the `BirthmarkError` that its handler raised.

        Raise `NobodyThereError` at once when no such worker lives, and `NoAnswerError` when none comes in time, or
        comes to nothing by a mistake of ours.
        """
        ...

    def tell(self, worker: str, batch: Sequence[BusRequest[R]]) -> None:
        """Let `worker` handle requests, one after the other; answers and errors go to its log, and it may be lost."""
        ...
