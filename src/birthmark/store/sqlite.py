"""SQLite: one writer thread with group commit (WAL, synchronous=FULL), and short reads on a separate connection.

Reads run in the event loop: they are indexed lookups of tens of microseconds, cheaper than a thread switch. An owner
whose reads exceed a time slice waits for its next turn. Full table scans run in a thread.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from birthmark import atomic_files
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, UnavailableError
from birthmark.net.fair_scheduler import yield_turn
from birthmark.store import schema_migration, signed_audit_chain
from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.compiled_statements import Statement
from birthmark.store.database import Batch, Hear, Outcomes, Row, SharedDatabase, ValueRefusedError
from birthmark.store.event_base_and_codec import encode_event, kind_of
from birthmark.store.group_commit import GroupCommit
from birthmark.store.object_counters import COUNT, summed
from birthmark.store.unit_of_work import Changes
from birthmark.untrusted_json_and_text import reason_of

_T = TypeVar("_T")


class WriterThread:
    """Runs jobs in its thread; results go to the event loop that created it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], _T]) -> asyncio.Future[_T]:
        """Queue `job`; the future gets its result or error."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._jobs.put((job, future))
        return future

    def stop(self) -> None:
        """Finish queued jobs, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (queued := self._jobs.get()) is not None:
            job, future = queued
            result, problem = None, None
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - passed to callers
                problem = error
            with contextlib.suppress(RuntimeError):  # loop closed, no caller waits
                self._loop.call_soon_threadsafe(_answer, future, result, problem)


def _answer(future: asyncio.Future[Any], result: object, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)


log = logging.getLogger(__name__)

_ROOM_S = 0.25
"""Seconds between disk space checks; the check requires 1 GB more than can be written in that time."""
_EVENT = "INSERT INTO outbox (worker, seq, kind, entity, version, body, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
_AUDIT = "INSERT INTO audit (chain, seq, at, actor, action, subject, detail, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_HEAD = (
    "INSERT INTO audit_heads (chain, seq, at, digest, key, signature, others) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, at = excluded.at, digest = excluded.digest, "
    "key = excluded.key, signature = excluded.signature, others = excluded.others"
)
_REVISION = "SELECT version_num FROM alembic_version"
_SAME_REVISION = "UPDATE alembic_version SET version_num = version_num"
_HEADS = "SELECT chain, seq, at, digest, signature, others FROM audit_heads"
_UNKEEPABLE = (UnicodeEncodeError, OverflowError, sqlite3.DataError)
_UNREADABLE = (*_UNKEEPABLE, sqlite3.Error)
_REFUSED = (BirthmarkError, sqlite3.IntegrityError, *_UNKEEPABLE)


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "store.unavailable"
    cause = "A read or write of the database at {where} failed: {reason}."
    fix = "Check the free disk space and that this user can write to the data directory. Then retry."
    for_a_person = "the disk has to be fixed"
    reason: object
    where: object


class SqliteDatabase:
    """A `Database` in one file."""

    def __init__(
        self, path: Path, clock: Clock, worker: str, signer: signed_audit_chain.HeadSigner | None = None
    ) -> None:
        self._signer = signer
        self._path = path
        self._clock = clock
        self.worker = worker
        self.seal: ColumnCipher | None = None
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only=ON")
        self._thread = WriterThread("sqlite-writer")
        self._others = signed_audit_chain.OtherChains(worker, signer)
        self._group = GroupCommit(lambda batch: self._thread.do(partial(self._run, batch)))
        self._aside = asyncio.Lock()
        self._reading: set[asyncio.Future[Sequence[Row]]] = set()
        """Reads in threads; they continue after their caller is cancelled."""
        self._discard = 0
        self._is_failing = False  # last commit
        self._has_room_until = 0.0
        row = self._writer.execute(
            "SELECT seq, digest FROM audit WHERE chain = ? ORDER BY seq DESC LIMIT 1", (worker,)
        ).fetchone()
        self._seq: int = row["seq"] if row else 0
        self._digest: bytes = row["digest"] if row else signed_audit_chain.GENESIS
        waiting = self._writer.execute("SELECT max(seq) FROM outbox WHERE worker = ?", (worker,)).fetchone()
        self._events: int = waiting[0] or 0

    @classmethod
    async def open(
        cls, path: str, clock: Clock, worker: str, signer: signed_audit_chain.HeadSigner | None = None
    ) -> Self:
        """Open or create the file, 0600, at this version's schema."""
        where = Path(path)
        try:
            if path != ":memory:":
                where.touch(mode=0o600, exist_ok=True)  # noqa: ASYNC240 - once at start
            connection = _connect(where)
            try:
                schema_migration.upgrade_sqlite(connection)
            finally:
                connection.close()
            return cls(where, clock, worker, signer)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseUnavailableError(where=path, reason=error) from error

    @property
    def commits(self) -> GroupCommit:
        return self._group

    @property
    def sharing(self) -> SharedDatabase:
        return self._group.sharing

    def unlock(self, seal: ColumnCipher) -> None:
        self.seal = seal

    async def commit(self, changes: Changes) -> None:
        await self._group.submit(changes)

    def submit(self, changes: Changes) -> asyncio.Future[None]:
        return self._group.submit(changes)

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        compiled = statement.compiled("sqlite")
        await yield_turn()
        try:
            row = self._reader.execute(compiled.sql, compiled.arguments(params, self.seal)).fetchone()
        except _UNREADABLE as error:
            raise self._refusal(error) from error
        return row if row is None or self.seal is None or not compiled.opened else self.seal.row(compiled.opened, row)

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        compiled = statement.compiled("sqlite")
        await yield_turn()
        try:
            rows = self._reader.execute(compiled.sql, compiled.arguments(params, self.seal)).fetchall()
        except _UNREADABLE as error:
            raise self._refusal(error) from error
        return rows if self.seal is None or not compiled.opened else self.seal.rows(compiled.opened, rows)

    async def read_in_background(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        compiled = statement.compiled("sqlite")
        try:
            async with self._aside:  # one at a time: threads are shared
                arguments = compiled.arguments(params, self.seal)
                reading = asyncio.ensure_future(asyncio.to_thread(_read, self._path, compiled.sql, arguments))
                self._reading.add(reading)
                reading.add_done_callback(self._was_read)
                rows = await asyncio.shield(reading)
        except _UNREADABLE as error:
            raise self._refusal(error) from error
        return rows if self.seal is None or not compiled.opened else self.seal.rows(compiled.opened, rows)

    def _was_read(self, reading: "asyncio.Future[Sequence[Row]]") -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # the caller may be gone; mark the error as retrieved

    async def events_after(self, last: int, limit: int) -> Sequence[Row]:
        sql = "SELECT seq, kind, body FROM outbox WHERE worker = ? AND seq > ? ORDER BY seq LIMIT ?"
        try:
            return self._reader.execute(sql, (self.worker, last, limit)).fetchall()
        except _UNREADABLE as error:
            raise self._refusal(error) from error

    def discard_events(self, upto: int) -> None:
        self._discard = upto

    async def write_outside_batch(self, statement: Statement, /, **params: Any) -> bool:
        try:
            await self.commit(Changes().run(statement, expect=1, **params))
        except ChangedMeanwhileError:
            return False
        return True

    def on_events(self, hear: Hear) -> None:
        self._group.sharing.hearers.append(hear)

    async def before_close(self) -> None:
        """Do nothing: a file is always available."""

    def find_disk_full_error(self) -> DatabaseUnavailableError | None:
        if (now := self._clock.monotonic()) < self._has_room_until:
            return None
        try:
            if atomic_files.has_least(self._path.parent):
                self._has_room_until = now + _ROOM_S
                return None
        except OSError as error:  # missing directory
            return DatabaseUnavailableError(where=self._path, reason=reason_of(error))
        return DatabaseUnavailableError(
            where=self._path, reason="its disk is nearly full, and the remaining space is reserved"
        )

    async def is_reachable(self) -> bool:
        try:
            self._reader.execute(_REVISION).fetchone()
            if self._is_failing:  # an unready server gets no requests, so this must check for recovery
                await self._thread.do(self._write_nothing)
        except sqlite3.Error:
            return False
        return True

    async def durability(self) -> str:
        level: int = await self._thread.do(lambda: self._writer.execute("PRAGMA synchronous").fetchone()[0])
        return {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}[level]

    def _refusal(self, error: Exception) -> BirthmarkError:
        if isinstance(error, _UNKEEPABLE):
            return ValueRefusedError(reason=reason_of(error))
        return DatabaseUnavailableError(where=self._path, reason=error)

    async def close(self) -> None:
        await self._group.settled()
        while self._reading:
            await asyncio.wait(self._reading)
        self._thread.stop()
        self._reader.close()
        self._writer.close()

    # Writer thread.

    def _run(self, batch: Batch) -> Outcomes:
        """Commit the batch as one; if a change is refused, repeat it with each change separately."""
        before, changed = self._ends(), self._writer.total_changes
        try:
            outcomes = self._committed(batch, before)
        except BaseException as error:
            self._roll_back(before)
            if not isinstance(error, sqlite3.Error):
                raise
            self._is_failing = True
            log.exception("store.commit_failed")
            failed = DatabaseUnavailableError(where=self._path, reason=error)
            return [failed] * len(batch)
        if None in outcomes and self._writer.total_changes != changed:  # without a write, the disk may still fail
            self._is_failing = False
        return outcomes

    def _committed(self, batch: Batch, before: tuple[int, bytes, int]) -> Outcomes:
        try:
            return self._commit(batch, self._apply)
        except _REFUSED as error:
            self._roll_back(before)
            if len(batch) == 1:
                return [_meaning_of(error)]
            return self._commit(batch, self._apply_on_its_own)

    def _write_nothing(self) -> None:
        """Test with a write without effect whether the disk accepts writes again."""
        self._writer.execute(_SAME_REVISION)
        self._is_failing = False

    def _commit(self, batch: Batch, apply: Callable[[Changes], BirthmarkError | None]) -> Outcomes:
        if len(batch) == 1 and not self._discard and batch[0][0].is_one_statement:
            return [apply(batch[0][0])]  # its own transaction
        before, discarded = self._seq, self._discard
        self._writer.execute("BEGIN IMMEDIATE")
        if discarded:
            self._writer.execute("DELETE FROM outbox WHERE worker = ? AND seq <= ?", (self.worker, discarded))
        outcomes = [apply(changes) for changes, _ in batch]
        self._count(changes for (changes, _), outcome in zip(batch, outcomes, strict=True) if outcome is None)
        if self._seq != before and self._signer is not None:
            self._sign_head(self._signer)
        self._writer.execute("COMMIT")
        if self._discard == discarded:
            self._discard = 0
        return outcomes

    def _count(self, changes: Iterable[Changes]) -> None:
        compiled = COUNT.compiled("sqlite")
        for (name, place, state, since), by in summed(changes).items():
            row = {"name": name, "place": place, "state": state, "since": since, "worker": self.worker, "value": by}
            self._writer.execute(compiled.sql, compiled.arguments(row))

    def _ends(self) -> tuple[int, bytes, int]:
        """Return the ends of the audit chain and the outbox."""
        return self._seq, self._digest, self._events

    def _roll_back(self, before: tuple[int, bytes, int]) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._seq, self._digest, self._events = before

    def _sign_head(self, signer: signed_audit_chain.HeadSigner) -> None:
        if (monotonic := self._clock.monotonic()) >= self._others.look_again_at:
            self._others.note(self._writer.execute(_HEADS).fetchall(), monotonic)
        now, others = self._clock.micros(), self._others.text
        signature = signer.sign(signed_audit_chain.head_body(self.worker, self._seq, now, self._digest, others))
        self._writer.execute(_HEAD, (self.worker, self._seq, now, self._digest, signer.public_key, signature, others))

    def _apply(self, changes: Changes) -> None:
        execute = self._writer.execute
        for write in changes.writes:
            compiled = write.statement.compiled("sqlite")
            touched = execute(compiled.sql, compiled.arguments(write.params, self.seal)).rowcount
            if write.expect is not None and touched != write.expect:
                raise write.refusal()
        if not changes.events and not changes.audits and not changes.counts:
            return
        now = self._clock.micros()
        changes.number(self._events + 1, now)
        for event in changes.events:
            self._events += 1
            kind, body = kind_of(type(event)), encode_event(event)
            execute(_EVENT, (self.worker, self._events, kind, event.entity, event.version, body, now))
        for row in changes.audits:
            self._seq += 1
            self._digest = signed_audit_chain.link(self._digest, self.worker, self._seq, now, row)
            execute(
                _AUDIT,
                (self.worker, self._seq, now, row.actor, row.action, row.subject, row.detail, self._digest),
            )

    def _apply_on_its_own(self, changes: Changes) -> BirthmarkError | None:
        before = self._ends()
        self._writer.execute("SAVEPOINT change")
        try:
            self._apply(changes)
        except _REFUSED as error:
            self._writer.execute("ROLLBACK TO change")
            self._seq, self._digest, self._events = before
            return _meaning_of(error)
        self._writer.execute("RELEASE change")
        return None


def _meaning_of(error: Exception) -> BirthmarkError:
    if isinstance(error, BirthmarkError):
        return error
    if isinstance(error, _UNKEEPABLE):
        return ValueRefusedError(reason=reason_of(error))
    return ChangedMeanwhileError(what="A record, or one that it needs,")


def _read(path: Path, sql: str, arguments: tuple[Any, ...]) -> Sequence[Row]:
    with contextlib.closing(_connect(path)) as connection:
        connection.execute("PRAGMA query_only=ON")
        return connection.execute(sql, arguments).fetchall()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection
