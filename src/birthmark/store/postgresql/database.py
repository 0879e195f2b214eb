"""PostgreSQL by asyncpg: the same group commit, one transaction per batch, a savepoint per change."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Self

import asyncpg

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, UnavailableError
from birthmark.store import chain as audit_chain
from birthmark.store import migrate
from birthmark.store.changes import Changes
from birthmark.store.database import Batch, GroupCommit, Hear, Outcomes, Row, ValueRefusedError
from birthmark.store.events import encode_event, kind_of
from birthmark.store.statements import Statement
from birthmark.store.values import to_micros

log = logging.getLogger(__name__)

_EVENT = "INSERT INTO outbox (worker, seq, kind, entity, version, body, at) VALUES ($1,$2,$3,$4,$5,$6,$7)"
_LAST_EVENT = "SELECT max(seq) FROM outbox WHERE worker = $1"
_AUDIT = "INSERT INTO audit (chain, seq, at, actor, action, subject, detail, digest) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)"
_HEAD = "SELECT seq, digest FROM audit WHERE chain = $1 ORDER BY seq DESC LIMIT 1"
_SIGN = (
    "INSERT INTO audit_heads (chain, seq, at, digest, key, signature) VALUES ($1, $2, $3, $4, $5, $6) "
    "ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, at = excluded.at, digest = excluded.digest, "
    "key = excluded.key, signature = excluded.signature"
)
_COMMAND_S = 60  # a server that hangs must not hang us
_TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


class PostgresUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "store.postgresql_unavailable"
    cause = "PostgreSQL did not take the request: {reason}."
    fix = "Check that the server runs and that the URL, user and password are right, then try again."
    for_a_person = "another server has to be put right"
    reason: object


class PostgresDatabase:
    """A `Database` on a PostgreSQL server (15 or newer)."""

    def __init__(self, pool: Any, clock: Clock, worker: str, signer: audit_chain.HeadSigner | None = None) -> None:
        self._signer = signer
        self._pool = pool
        self._clock = clock
        self.worker = worker
        self._group = GroupCommit(lambda batch: asyncio.ensure_future(self._run(batch)))
        self._discard = 0
        self._seq = 0
        self._events = 0
        self._digest = audit_chain.GENESIS
        self._is_head_known = False

    @classmethod
    async def open(cls, url: str, clock: Clock, worker: str, signer: audit_chain.HeadSigner | None = None) -> Self:
        """Connect and migrate to this version's schema."""
        with translated():
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=8,
                command_timeout=_COMMAND_S,
                server_settings={"synchronous_commit": "on", "application_name": "birthmark"},
            )
            async with pool.acquire() as connection:
                await migrate.upgrade_postgresql(connection)
        return cls(pool, clock, worker, signer)

    async def commit(self, changes: Changes) -> None:
        await self._group.submit(changes)

    def submit(self, changes: Changes) -> asyncio.Future[None]:
        return self._group.submit(changes)

    async def one(self, statement: Statement, /, **params: Any) -> Row | None:
        compiled = statement.compiled("postgresql")
        with translated():
            return await self._pool.fetchrow(compiled.sql, *compiled.arguments(params))

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        compiled = statement.compiled("postgresql")
        with translated():
            rows: Sequence[Row] = await self._pool.fetch(compiled.sql, *compiled.arguments(params))
        return rows

    async def events_after(self, last: int, limit: int) -> Sequence[Row]:
        with translated():
            rows: Sequence[Row] = await self._pool.fetch(
                "SELECT seq, kind, body FROM outbox WHERE worker = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                self.worker,
                last,
                limit,
            )
        return rows

    def discard_events(self, upto: int) -> None:
        self._discard = upto

    def on_events(self, hear: Hear) -> None:
        self._group.hearers.append(hear)

    async def durability(self) -> str:
        with translated():
            return str(await self._pool.fetchval("SHOW synchronous_commit"))

    async def close(self) -> None:
        await self._group.settled()
        await self._pool.close()

    async def _run(self, batch: Batch) -> Outcomes:
        was_known, self._is_head_known = self._is_head_known, False  # until the answer to COMMIT is here
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                if not was_known:
                    head = await connection.fetchrow(_HEAD, self.worker)
                    self._seq, self._digest = (head["seq"], head["digest"]) if head else (0, audit_chain.GENESIS)
                    # Never a number twice: those of rows that were handed over are gone with them.
                    self._events = max(self._events, await connection.fetchval(_LAST_EVENT, self.worker) or 0)
                if self._discard:
                    sql = "DELETE FROM outbox WHERE worker = $1 AND seq <= $2"
                    await connection.execute(sql, self.worker, self._discard)
                first = self._seq
                outcomes = [await self._apply(connection, changes) for changes, _ in batch]
                if self._seq != first and self._signer is not None:
                    await self._sign_head(connection, self._signer)
        except _TROUBLE as error:
            log.exception("store.commit_failed")
            failed = PostgresUnavailableError(reason=error)
            return [failed] * len(batch)
        self._is_head_known = True
        return outcomes

    async def _sign_head(self, connection: Any, signer: audit_chain.HeadSigner) -> None:
        now = to_micros(self._clock.now())
        signature = signer.sign(audit_chain.head_body(self.worker, self._seq, now, self._digest))
        await connection.execute(_SIGN, self.worker, self._seq, now, self._digest, signer.public_key, signature)

    async def _apply(self, connection: Any, changes: Changes) -> BirthmarkError | None:
        before = self._seq, self._digest, self._events
        try:
            async with connection.transaction():
                for write in changes.writes:
                    compiled = write.statement.compiled("postgresql")
                    status = await connection.execute(compiled.sql, *compiled.arguments(write.params))
                    if write.expect is not None and int(status.rpartition(" ")[2]) != write.expect:
                        raise write.otherwise or ChangedMeanwhileError()
                now = to_micros(self._clock.now())
                for event in changes.events:
                    self._events += 1
                    kind, body = kind_of(type(event)), encode_event(event)
                    await connection.execute(
                        _EVENT, self.worker, self._events, kind, event.entity, event.version, body, now
                    )
                for row in changes.audits:
                    self._seq += 1
                    self._digest = audit_chain.link(self._digest, self.worker, self._seq, now, row)
                    await connection.execute(
                        _AUDIT,
                        self.worker,
                        self._seq,
                        now,
                        row.actor,
                        row.action,
                        row.subject,
                        row.detail,
                        self._digest,
                    )
        except (BirthmarkError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
            self._seq, self._digest, self._events = before
            if isinstance(error, BirthmarkError):
                return error
            if isinstance(error, asyncpg.DataError):
                return ValueRefusedError(reason=type(error).__name__)
            return ChangedMeanwhileError(what="A record, or one that it needs,")
        return None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.DataError as error:
        raise ValueRefusedError(reason=type(error).__name__) from error
    except _TROUBLE as error:
        raise PostgresUnavailableError(reason=error) from error
