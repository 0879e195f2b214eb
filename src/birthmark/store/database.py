"""The Database port and the group commit that both engines share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.metric_catalog import Distribution
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
        "Remove NUL characters (`%00` in a URL, `\\u0000` in JSON) and unpaired surrogates. Shorten long names. Keep "
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
