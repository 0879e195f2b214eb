"""What the spaces of a worker need of its broker, and their parts of both."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from birthmark.broker.bus_requests import DeliverTo, LiveMessage
from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.in_flight import InFlightBudget
from birthmark.broker.model import SessionRecord
from birthmark.broker.ports import Watch
from birthmark.broker.session_queue_writer import SessionQueueWriter
from birthmark.bus.ports import BusRequest, NoAnswerError, NobodyThereError, R
from birthmark.store import Changes, Database

_SMALL_BYTES, _FEW_CLIENTS = 8 * 1024, 64
_MOST_BYTES = 128 * 1024  # a message of AWS has no more
Sent = tuple[LiveMessage, str]
"""A letter, and whose it is."""


class WorkerForwarder:
    """See the module. `ask` asks another worker."""

    def __init__(
        self, ask: Callable[[str, DeliverTo], Awaitable[None]], spawn: Callable[[Awaitable[None]], None]
    ) -> None:
        self.underway = InFlightBudget()
        self._ask = ask
        self._spawn = spawn
        self._waiting: dict[str, dict[str | None, list[Sent]]] = {}  # by worker; by owner, None's with those of others

    def send(self, worker: str, letter: LiveMessage, owner: str) -> None:
        """Send a message of `owner` soon; `underway` says whether there is room for more."""
        size = len(letter.message)
        by_itself = size > _SMALL_BYTES or len(letter.clients) > _FEW_CLIENTS or owner in self.underway
        self.underway.begun(owner, size)
        if worker not in self._waiting:
            self._waiting[worker] = {None: []}
            self._spawn(self._flush(worker))
        self._waiting[worker].setdefault(owner if by_itself else None, []).append((letter, owner))

    async def _flush(self, worker: str) -> None:
        """Of one owner, what is sent with those of others is what came first."""
        for sent in self._waiting.pop(worker).values():
            for some in _portions(sent):
                self._spawn(self._sent(worker, some))

    async def _sent(self, worker: str, some: Sequence[Sent]) -> None:
        try:
            await self._ask(worker, DeliverTo(tuple([letter for letter, _ in some])))
        except (NobodyThereError, NoAnswerError):  # its clients are as good as cut off
            pass
        finally:
            for letter, owner in some:
                self.underway.ended(owner, len(letter.message))


def _portions(sent: Sequence[Sent]) -> list[list[Sent]]:
    """Return what goes in one request each: NATS takes no more than a megabyte."""
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
    underway: InFlightBudget
    unwritten: InFlightBudget
    unsettled: set[ConnectedSession]
    watch: Watch | None
    deleting: asyncio.Semaphore
    """The turn of a session whose queue is deleted."""

    @property
    def is_fresh(self) -> bool:
        """What this worker remembers may be acted on: nobody else can have changed it without its knowledge."""
        ...

    async def fresh(self) -> None:
        """Return when `is_fresh`. Raise `WorkerLostError`."""
        ...

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        ...

    def since(self) -> int:
        """Return from when on what began may be over by now: a clock that was just set ends nothing from before."""
        ...

    def spawn(self, waiting: Awaitable[None]) -> None:
        """Run something to its end, whoever else is gone by then; what it raises is logged."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...

    def due_at(self, at: int | None) -> None:
        """Look again at this time."""
        ...

    def settle_later(self, attached: ConnectedSession) -> None:
        """Write a cursor soon."""
        ...

    async def vacate(self, space: SessionNamespace, client: str, record: SessionRecord, *, ends: bool) -> None:
        """Return when the worker that has a session has let go of it, or is dead and its session is free."""
        ...

    async def ask_others(self, request: BusRequest[R]) -> list[R]:
        """Return what the other workers that live answer; those that do not answer are left out."""
        ...

    async def made_known(self, space: SessionNamespace, shapes: Iterable[str] = ()) -> None:
        """Return when every worker looks for filters of these shapes, and has forgotten what it looked up before."""
        ...


class CountedNamespace(SessionNamespace, Protocol):
    """A space whose stored sessions are counted."""

    def condition(self, client: str) -> Changes:
        """Return what a commit begins with that would bring back the session of a client that is no more."""
        ...

    def one_more_is_stored(self) -> None:
        """Count a session whose row was made after its connection."""
        ...
