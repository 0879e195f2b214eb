"""What the spaces of a worker need of its broker, and their parts of both."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Protocol

from birthmark.broker.across import Across
from birthmark.broker.appends import Appends
from birthmark.broker.attached import Attached, Home
from birthmark.broker.model import Record
from birthmark.broker.ports import Watch
from birthmark.broker.underway import Underway
from birthmark.bus.ports import R, Request
from birthmark.store import Changes, Database


class Host(Protocol):
    """The broker of this worker."""

    database: Database
    worker: str
    is_alone: bool
    appends: Appends
    across: Across
    underway: Underway
    unwritten: Underway
    unsettled: set[Attached]
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

    def settle_later(self, attached: Attached) -> None:
        """Write a cursor soon."""
        ...

    async def vacate(self, space: Home, client: str, record: Record, *, ends: bool) -> None:
        """Return when the worker that has a session has let go of it, or is dead and its session is free."""
        ...

    async def ask_others(self, request: Request[R]) -> list[R]:
        """Return what the other workers that live answer; those that do not answer are left out."""
        ...

    async def made_known(self, space: Home, shapes: Iterable[str] = ()) -> None:
        """Return when every worker looks for filters of these shapes, and has forgotten what it looked up before."""
        ...


class Counted(Home, Protocol):
    """A space whose stored sessions are counted."""

    def condition(self, client: str) -> Changes:
        """Return what a commit begins with that would bring back the session of a client that is no more."""
        ...

    def one_more_is_stored(self) -> None:
        """Count a session whose row was made after its connection."""
        ...
