"""SQLite: one writer thread with group commit (WAL, synchronous=FULL), short reads on a connection of their own.

Reads run in the loop: they are indexed look-ups of tens of microseconds, cheaper than a hop to a thread.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, UnavailableError
from birthmark.store import chain as audit_chain
from birthmark.store import migrate
from birthmark.store.changes import Changes
from birthmark.store.database import Batch, GroupCommit, Outcomes, Row, ValueRefusedError
from birthmark.store.statements import Statement
from birthmark.store.values import to_micros

log = logging.getLogger(__name__)

_EVENT = "INSERT INTO outbox (topic, body, at) VALUES (?, ?, ?)"
_AUDIT = "INSERT INTO audit (chain, seq, at, actor, action, subject, detail, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_HEAD = (
    "INSERT INTO audit_heads (chain, seq, at, digest, key, signature) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (chain) DO "
    "UPDATE SET seq = excluded.seq, at = excluded.at, digest = excluded.digest, key = excluded.key, "
    "signature = excluded.signature"
)
_UNKEEPABLE = (UnicodeEncodeError, OverflowError, sqlite3.DataError)


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "store.unavailable"
    cause = "The database at {where} did not take a read or write: {reason}."
    fix = "Check free disk space and that the data directory is writable by this user, then try again."
    for_a_person = "a disk has to be put right"
    reason: object
    where: object


class SqliteDatabase:
    """A `Database` in one file."""

    def __init__(self, path: Path, clock: Clock, chain: str, signer: audit_chain.HeadSigner | None = None) -> None:
        self._signer = signer
        self._path = path
        self._clock = clock
        self._chain = chain
        self._writer = _connect(path)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only=ON")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._loop = asyncio.get_running_loop()
        self._group = GroupCommit(lambda batch: self._loop.run_in_executor(self._thread, self._run, batch))
        self._discard = 0
        row = self._writer.execute(
            "SELECT seq, digest FROM audit WHERE chain = ? ORDER BY seq DESC LIMIT 1", (chain,)
        ).fetchone()
        self._seq: int = row["seq"] if row else 0
        self._digest: bytes = row["digest"] if row else audit_chain.GENESIS

    @classmethod
    async def open(cls, path: str, clock: Clock, chain: str, signer: audit_chain.HeadSigner | None = None) -> Self:
        """Open or create the file, 0600, at this version's schema."""
        where = Path(path)
        try:
            if path != ":memory:":
                where.touch(mode=0o600, exist_ok=True)  # noqa: ASYNC240 - once, at start
            connection = _connect(where)
            try:
                migrate.upgrade_sqlite(connection)
            finally:
                connection.close()
            return cls(where, clock, chain, signer)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseUnavailableError(where=path, reason=error) from error

    async def commit(self, changes: Changes) -> None:
        await self._group.submit(changes)

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        compiled = statement.compiled("sqlite")
        with _translated(self._path):
            return self._reader.execute(compiled.sql, compiled.arguments(params)).fetchone()

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        compiled = statement.compiled("sqlite")
        with _translated(self._path):
            return self._reader.execute(compiled.sql, compiled.arguments(params)).fetchall()

    async def events_after(self, last: int, limit: int) -> Sequence[Row]:
        sql = "SELECT id, topic, body FROM outbox WHERE id > ? ORDER BY id LIMIT ?"
        with _translated(self._path):
            return self._reader.execute(sql, (last, limit)).fetchall()

    def discard_events(self, upto: int) -> None:
        self._discard = upto

    def on_events(self, wake: Callable[[], None]) -> None:
        self._group.on_events = wake

    async def durability(self) -> str:
        level: int = await self._loop.run_in_executor(
            self._thread, lambda: self._writer.execute("PRAGMA synchronous").fetchone()[0]
        )
        return {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}[level]

    async def close(self) -> None:
        await self._group.settled()
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()

    # In the writer thread.

    def _run(self, batch: Batch) -> Outcomes:
        before = self._seq, self._digest
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            if self._discard:
                self._writer.execute("DELETE FROM outbox WHERE id <= ?", (self._discard,))
            outcomes = [self._apply(changes) for changes, _ in batch]
            if self._seq != before[0] and self._signer is not None:
                self._sign_head(self._signer)
            self._writer.execute("COMMIT")
        except BaseException as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._seq, self._digest = before
            if not isinstance(error, sqlite3.Error):
                raise
            log.exception("store.commit_failed")
            failed = DatabaseUnavailableError(where=self._path, reason=error)
            return [failed] * len(batch)
        return outcomes

    def _sign_head(self, signer: audit_chain.HeadSigner) -> None:
        now = to_micros(self._clock.now())
        signature = signer.sign(audit_chain.head_body(self._chain, self._seq, now, self._digest))
        self._writer.execute(_HEAD, (self._chain, self._seq, now, self._digest, signer.public_key, signature))

    def _apply(self, changes: Changes) -> BirthmarkError | None:
        execute = self._writer.execute
        before = self._seq, self._digest
        execute("SAVEPOINT change")
        try:
            for write in changes.writes:
                compiled = write.statement.compiled("sqlite")
                touched = execute(compiled.sql, compiled.arguments(write.params)).rowcount
                if write.expect is not None and touched != write.expect:
                    raise write.otherwise or ChangedMeanwhileError()
            now = to_micros(self._clock.now())
            for event in changes.events:
                execute(_EVENT, (event.topic, event.body, now))
            for row in changes.audits:
                self._seq += 1
                self._digest = audit_chain.link(self._digest, self._chain, self._seq, now, row)
                execute(
                    _AUDIT,
                    (self._chain, self._seq, now, row.actor, row.action, row.subject, row.detail, self._digest),
                )
        except (BirthmarkError, sqlite3.IntegrityError, *_UNKEEPABLE) as error:
            execute("ROLLBACK TO change")
            execute("RELEASE change")
            self._seq, self._digest = before
            if isinstance(error, BirthmarkError):
                return error
            if isinstance(error, _UNKEEPABLE):
                return ValueRefusedError(reason=type(error).__name__)
            return ChangedMeanwhileError(what="A record, or one that it needs,")
        execute("RELEASE change")
        return None


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNKEEPABLE as error:
        raise ValueRefusedError(reason=type(error).__name__) from error
    except sqlite3.Error as error:
        raise DatabaseUnavailableError(where=path, reason=error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection
