"""The Database port and the group commit that both engines share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.metrics import SECONDS, SIZES, Distribution
from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.events import Event
from birthmark.store.statements import Statement
from birthmark.store.unit_of_work import Changes
from birthmark.supervised_tasks import note, told

# A row of either engine: values by column name.
Row = Any


class ValueRefusedError(InvalidRequestError):
    """The database cannot store or search the value."""

    code = "store.value_refused"
    cause = "The request contains a value that the database cannot store: {reason}."
    fix = (
        "Remove NUL characters, `%00` in a URL and `\\u0000` in JSON, and unpaired surrogates. Keep "
        "numbers within 64 bits."
    )
    reason: str


def may_be_kept(problem: BaseException | None) -> bool:
    """Say whether the engine went away before its answer, and may have kept the changes.

    What may be written twice, and not left out, is written again then.
    """
    return bool(getattr(problem, "may_be_kept", False))


class Commits(Protocol):
    """What came of the commits so far: how long each took, how many changes shared it, and how many wait."""

    seconds: Distribution
    sizes: Distribution

    @property
    def waiting(self) -> int:
        """How many changes wait."""
        ...


Heard = tuple[int, Event]
"""An event, and the number of its row in this worker's outbox; 0 where another worker committed it."""
Hear = Callable[[Sequence[Heard], bool], None]


class SharedDatabase:
    """What several workers on one database owe each other; one that is alone owes nobody anything."""

    def __init__(self) -> None:
        self.hearers: list[Hear] = []
        self.is_fresh: Callable[[], bool] = _always
        """Whether this worker may act on what it remembers: nobody counts it as dead, or deaf."""
        self.confirm: Callable[[Sequence[Heard]], Awaitable[None]] | None = None
        """Returns when no other worker acts any more on what was true before these events."""
        self.number = 0
        """Of this worker among at most 256 on one database."""
        self._reading: set[asyncio.Task[None]] = set()

    def join(
        self, number: int, confirm: Callable[[Sequence[Heard]], Awaitable[None]], is_fresh: Callable[[], bool]
    ) -> None:
        """Share the database with other workers from now on."""
        self.number, self.confirm, self.is_fresh = number, confirm, is_fresh

    def leave(self) -> None:
        """Commit without a confirmation of the others from now on."""
        self.confirm = None

    @property
    def is_alone(self) -> bool:
        """Say whether nobody else commits to this database."""
        return self.confirm is None

    def hear(self, events: Sequence[Heard], *, is_sure: bool = True) -> None:
        """Let everyone here who listens hear of what was committed."""
        for hear in self.hearers if events else ():
            try:
                hear(events, is_sure)
            except Exception as error:  # noqa: BLE001 - whoever committed is answered all the same
                note("hearing of a commit", error)

    def read(self, reading: Coroutine[Any, Any, None]) -> None:
        """Read anew what another worker changed; who waits for this worker to have heard waits for it, too."""
        task = asyncio.get_running_loop().create_task(told("reading anew", reading))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def has_read(self) -> None:
        """Return when what was heard so far has been read."""
        if self._reading:
            await asyncio.wait(tuple(self._reading))


def _always() -> bool:
    return True


class DatabaseReader(Protocol):
    """Whatever answers a statement: a server's database, or its file alone."""

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        """Return every row; give the statement a LIMIT."""
        ...


class Database(DatabaseReader, Protocol):
    """Durable state. Reads see every commit that has returned."""

    def unlock(self, seal: ColumnCipher) -> None:
        """Seal and open the columns with secrets from now on; until then they are as they are kept."""
        ...

    @property
    def worker(self) -> str:
        """Name who commits here: its outbox and its audit chain are its own."""
        ...

    @property
    def commits(self) -> Commits:
        """Tell of the commits so far."""
        ...

    @property
    def sharing(self) -> SharedDatabase:
        """What other workers on this database are owed."""
        ...

    async def commit(self, changes: Changes) -> None:
        """Return when `changes` is durable.

        Raise the write's own error or `ConflictError` when a condition did not hold, `ValueRefusedError` for a value
        that no column holds, `UnavailableError` when the engine failed; nothing of `changes` was kept then. Only when
        the engine went away between the write and its answer may it have been kept all the same; then `may_be_kept`
        says so of the error. An engine that is away for some seconds is waited for.
        """
        ...

    def submit(self, changes: Changes) -> asyncio.Future[None]:
        """Queue `changes`; the future ends as `commit` does."""
        ...

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        """Return the first row, or None."""
        ...

    async def beside(self, statement: Statement, /, **params: Any) -> bool:
        """Write one row, whatever else is being committed, and say whether there was one that fitted.

        For signs of life: they wait neither for the commits of others nor for large ones of this worker.
        """
        ...

    async def aside(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        """Return every row, of a statement that reads very many to find them: others are served meanwhile."""
        ...

    async def events_after(self, last: int, limit: int) -> Sequence[Row]:
        """Return this worker's outbox rows (seq, kind, body) with a greater number, in the order of their commits."""
        ...

    def discard_events(self, upto: int) -> None:
        """Let the next commit delete this worker's outbox rows up to this number; they were handed over."""
        ...

    def on_events(self, hear: Hear) -> None:
        """Call `hear` too, in the loop, with the events of every commit, before whoever committed is answered.

        And whether it is sure: when the engine went away before its answer, a commit may have been kept, or still be,
        and the numbers mean nothing.
        """
        ...

    def no_room(self) -> UnavailableError | None:
        """Return why what devices send may take no more of the disk; None while it may, and where that is not known."""
        ...

    async def is_reachable(self) -> bool:
        """Say whether the engine answers, now and soon."""
        ...

    async def durability(self) -> str:
        """Return the engine's own word for how a commit is made durable (FULL, on)."""
        ...

    async def before_close(self) -> None:
        """Wait a moment for an engine that is away; where it stays away, let nobody wait for it any more."""
        ...

    async def close(self) -> None:
        """Finish what was handed in, then close."""
        ...


Batch = list[tuple[Changes, asyncio.Future[None]]]
Outcomes = Sequence[BirthmarkError | None]


MOST_WRITES = 2000
"""Of a batch, but for those of its last change."""


class GroupCommit:
    """Gathers the changes of a loop tick, and of the time the last commit took, into one batch.

    `run` commits a batch and gives one outcome per change: None when it is durable, else why nothing of it was kept.
    """

    def __init__(self, run: Callable[[Batch], asyncio.Future[Outcomes]]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._waiting: Batch = []
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.sharing = SharedDatabase()
        self._confirming: set[asyncio.Task[None]] = set()
        self.seconds = Distribution(SECONDS)
        self.sizes = Distribution(SIZES)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, changes: Changes) -> asyncio.Future[None]:
        """Queue `changes`; the future resolves when it is durable or refused."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((changes, future))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._flush)
        return future

    async def settled(self) -> None:
        """Return when nothing is queued or running."""
        await self._idle.wait()

    def _flush(self) -> None:
        batch, self._waiting = _first_of(self._waiting)
        self.sizes.observe(len(batch))
        self._run(batch).add_done_callback(partial(self._done, batch, self._loop.time()))

    def _done(self, batch: Batch, began: float, finished: asyncio.Future[Outcomes]) -> None:
        self.seconds.observe(self._loop.time() - began)
        if self._waiting:
            self._loop.call_soon(self._flush)
        else:
            self._busy = False
            self._idle.set()
        bug = finished.exception()  # whoever waits gets it: no caller hangs for a mistake of ours
        outcomes = [bug] * len(batch) if bug is not None else finished.result()
        settled = list(zip(batch, outcomes, strict=True))
        for is_sure in (True, False):
            happened = [
                heard
                for (changes, _), problem in settled
                if changes.events and _is_kept(problem) is is_sure
                for heard in enumerate(changes.events, changes.first_event)
            ]
            self.sharing.hear(happened, is_sure=is_sure)
        if (confirm := self.sharing.confirm) is not None:
            owed = [one for one in settled if _is_owed(*one)]
            if owed:
                settled = [one for one in settled if not _is_owed(*one)]
                numbered = [enumerate(changes.events, changes.first_event) for (changes, _), _ in owed]
                waiting = confirm([heard for events in numbered for heard in events if heard[1].is_remembered])
                confirming = self._loop.create_task(_confirmed(waiting, owed))
                self._confirming.add(confirming)
                confirming.add_done_callback(self._confirming.discard)
        _answer(settled)


def _first_of(waiting: Batch) -> tuple[Batch, Batch]:
    """Return the changes of the next batch, and the others: a very large batch keeps whoever comes next waiting."""
    writes = 0
    for number, (changes, _) in enumerate(waiting, 1):
        writes += len(changes.writes)
        if writes >= MOST_WRITES:
            return waiting[:number], waiting[number:]
    return waiting, []


Settled = Sequence[tuple[tuple[Changes, "asyncio.Future[None]"], BaseException | None]]


async def _confirmed(waiting: Awaitable[None], owed: Settled) -> None:
    """Answer who revokes something when it is revoked everywhere; those beside them in the batch do not wait."""
    problem: BaseException | None = None
    try:
        await waiting
    except Exception as error:  # noqa: BLE001 - nobody may hang for it, nor be told that all have heard
        note("confirming a commit", error)
        problem = error
    _answer([(one, problem) for one, _ in owed])


def _is_owed(one: tuple[Changes, "asyncio.Future[None]"], problem: BaseException | None) -> bool:
    return problem is None and any(event.is_remembered for event in one[0].events)


def _answer(settled: Settled) -> None:
    for (_, future), problem in settled:
        if future.done():
            continue  # its caller was cancelled; the change is kept all the same
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)


def _is_kept(problem: BaseException | None) -> bool | None:
    """Say whether a change was kept; None when it was refused, False when nobody can tell."""
    if problem is None:
        return True
    return None if isinstance(problem, BirthmarkError) and not isinstance(problem, UnavailableError) else False
