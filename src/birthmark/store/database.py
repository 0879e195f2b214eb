"""The Database port and the group commit that both engines share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.metric_catalog import SECONDS, SIZES, Distribution
from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.compiled_statements import Statement
from birthmark.store.event_base_and_codec import Event
from birthmark.store.unit_of_work import Changes
from birthmark.supervised_tasks import note, told

# A row of either engine: values by column.
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
    """Return whether the engine disconnected before its response and may have committed the changes.

    In that case, writes that may be repeated but not lost are written again.
    """
    return bool(getattr(problem, "may_be_kept", False))


class Commits(Protocol):
    """Statistics of the commits: duration, changes per batch, and queue length."""

    seconds: Distribution
    sizes: Distribution

    @property
    def waiting(self) -> int:
        """Number of queued changes."""
        ...


Heard = tuple[int, Event]
"""An event and the number of its outbox row at this worker; 0 if another worker committed it."""
Hear = Callable[[Sequence[Heard], bool], None]


class SharedDatabase:
    """Coordination of several workers on one database; a single worker needs none."""

    def __init__(self) -> None:
        self.hearers: list[Hear] = []
        self.is_fresh: Callable[[], bool] = _always
        """Returns whether this worker may use its caches: no other worker considers it dead or disconnected."""
        self.confirm: Callable[[Sequence[Heard]], Awaitable[None]] | None = None
        """Waits until no other worker uses data that these events invalidate."""
        self.number = 0
        """Number of this worker, of at most 256 on one database."""
        self._reading: set[asyncio.Task[None]] = set()

    def join(
        self, number: int, confirm: Callable[[Sequence[Heard]], Awaitable[None]], is_fresh: Callable[[], bool]
    ) -> None:
        """Share the database with other workers."""
        self.number, self.confirm, self.is_fresh = number, confirm, is_fresh

    def leave(self) -> None:
        """Stop waiting for confirmations of other workers before commits."""
        self.confirm = None

    @property
    def is_alone(self) -> bool:
        """Return whether no other worker commits to this database."""
        return self.confirm is None

    def hear(self, events: Sequence[Heard], *, is_sure: bool = True) -> None:
        """Notify all local listeners of committed events."""
        for hear in self.hearers if events else ():
            try:
                hear(events, is_sure)
            except Exception as error:  # noqa: BLE001 - the commit is answered anyway
                note("hearing of a commit", error)

    def read(self, reading: Coroutine[Any, Any, None]) -> None:
        """Reload data that another worker changed; confirmations of this worker wait for the reload."""
        task = asyncio.get_running_loop().create_task(told("rereading", reading))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def has_read(self) -> None:
        """Wait until the pending reloads are complete."""
        if self._reading:
            await asyncio.wait(tuple(self._reading))


def _always() -> bool:
    return True


class DatabaseReader(Protocol):
    """A source of query results: a server's database, or only its file."""

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        """Return all rows; the statement needs a LIMIT."""
        ...


class Database(DatabaseReader, Protocol):
    """The persistent state. Reads see every commit that has returned."""

    def unlock(self, seal: ColumnCipher) -> None:
        """Encrypt and decrypt the secret columns from now on; before, stored values are returned unchanged."""
        ...

    @property
    def worker(self) -> str:
        """Name of the committing worker, which has a separate outbox and audit chain."""
        ...

    @property
    def commits(self) -> Commits:
        """Statistics of the commits."""
        ...

    @property
    def sharing(self) -> SharedDatabase:
        """Coordination with the other workers on this database."""
        ...

    async def commit(self, changes: Changes) -> None:
        """Commit `changes`, and return when they are durable.

        Raise the write's own error or `ConflictError` if a condition failed, `ValueRefusedError` for a value that no
        column can store, and `UnavailableError` if the engine failed. In these cases nothing of `changes` is committed.
        Only if the engine disconnected between the write and its response may they be committed anyway; `may_be_kept`
        then returns True for the error. Commits wait for an engine that is unavailable for some seconds.
        """
        ...

    def submit(self, changes: Changes) -> asyncio.Future[None]:
        """Queue `changes`; the future completes as `commit` does."""
        ...

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        """Return the first row, or None."""
        ...

    async def write_outside_batch(self, statement: Statement, /, **params: Any) -> bool:
        """Write one row outside the batches, and return whether a row matched.

        For heartbeats: they wait neither for other workers' commits nor for large ones of this worker.
        """
        ...

    async def read_in_background(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        """Return all rows of a statement that scans very many rows, without blocking other requests."""
        ...

    async def events_after(self, last: int, limit: int) -> Sequence[Row]:
        """Return this worker's outbox rows (seq, kind, body) above this number, in commit order."""
        ...

    def discard_events(self, upto: int) -> None:
        """Have the next commit delete this worker's outbox rows up to this number, which are delivered."""
        ...

    def on_events(self, hear: Hear) -> None:
        """Register `hear` to be called in the loop with the events of every commit, before the commit returns.

        Its second argument is whether the commit is certain. If the engine disconnected before its response, a commit
        may already be stored, or may still be, and the numbers have no meaning.
        """
        ...

    def find_disk_full_error(self) -> UnavailableError | None:
        """Return why devices may not use more disk space; None if they may, or if the space is unknown."""
        ...

    async def is_reachable(self) -> bool:
        """Return whether the engine responds promptly."""
        ...

    async def durability(self) -> str:
        """Return the engine's durability setting for commits (FULL, on)."""
        ...

    async def before_close(self) -> None:
        """Wait briefly for an unavailable engine; if it stays unavailable, fail all waiting requests."""
        ...

    async def close(self) -> None:
        """Finish submitted changes, then close."""
        ...


Batch = list[tuple[Changes, asyncio.Future[None]]]
Outcomes = Sequence[BirthmarkError | None]


MOST_WRITES = 2000
"""Maximum number of writes per batch, not counting those of its last change."""


class GroupCommit:
    """Group commit: batches the changes of an event loop iteration, and those that arrive during the previous commit.

    `run` commits a batch and returns one outcome per change: None if it is durable, or the error for which nothing of
    it was committed.
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
        """Wait until nothing is queued or running."""
        await self._idle.wait()

    def _flush(self) -> None:
        batch, self._waiting = _split_batch(self._waiting)
        self.sizes.observe(len(batch))
        self._run(batch).add_done_callback(partial(self._done, batch, self._loop.time()))

    def _done(self, batch: Batch, began: float, finished: asyncio.Future[Outcomes]) -> None:
        self.seconds.observe(self._loop.time() - began)
        if self._waiting:
            self._loop.call_soon(self._flush)
        else:
            self._busy = False
            self._idle.set()
        bug = finished.exception()  # callers get it: our bugs must not hang them
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
                confirming = self._loop.create_task(_complete_after_confirmation(waiting, owed))
                self._confirming.add(confirming)
                confirming.add_done_callback(self._confirming.discard)
        _answer(settled)


def _split_batch(waiting: Batch) -> tuple[Batch, Batch]:
    """Return the changes of the next batch, and the remaining ones.

    The size of a batch is bounded to limit the delay for others.
    """
    writes = 0
    for number, (changes, _) in enumerate(waiting, 1):
        writes += len(changes.writes)
        if writes >= MOST_WRITES:
            return waiting[:number], waiting[number:]
    return waiting, []


Settled = Sequence[tuple[tuple[Changes, "asyncio.Future[None]"], BaseException | None]]


async def _complete_after_confirmation(waiting: Awaitable[None], owed: Settled) -> None:
    """Complete revocations after all workers confirm them; other changes of the batch do not wait."""
    problem: BaseException | None = None
    try:
        await waiting
    except Exception as error:  # noqa: BLE001 - callers must not hang, nor assume that all heard it
        note("confirming a commit", error)
        problem = error
    _answer([(one, problem) for one, _ in owed])


def _is_owed(one: tuple[Changes, "asyncio.Future[None]"], problem: BaseException | None) -> bool:
    return problem is None and any(event.is_remembered for event in one[0].events)


def _answer(settled: Settled) -> None:
    for (_, future), problem in settled:
        if future.done():
            continue  # the caller was cancelled; the change is stored anyway
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)


def _is_kept(problem: BaseException | None) -> bool | None:
    """Return whether a change was committed; None if it was refused, False if the result is unknown."""
    if problem is None:
        return True
    return None if isinstance(problem, BirthmarkError) and not isinstance(problem, UnavailableError) else False
