"""The database port for PostgreSQL 15 or newer: reads from a pool, and sequential batches over one connection."""

import asyncio
import contextlib
import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import asyncpg
from sqlalchemy import bindparam, delete

from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, UnavailableError
from birthmark.fair_semaphore import FairSemaphore
from birthmark.net.fair_scheduler import Backlog
from birthmark.store import schema_migration, signed_audit_chain
from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.compiled_statements import Statement, statement
from birthmark.store.core_tables import audit, audit_heads, outbox
from birthmark.store.database import Batch, Hear, Outcomes, Row, SharedDatabase, ValueRefusedError
from birthmark.store.event_base_and_codec import encode_event, kind_of
from birthmark.store.group_commit import GroupCommit
from birthmark.store.object_counters import COUNT, summed
from birthmark.store.postgresql.batch_functions import BatchSteps, StatementPlan
from birthmark.store.postgresql.outage_retry import HEARTBEAT_PAUSE_S, OPTIONS, PATIENCE_S, TROUBLE, patiently
from birthmark.store.postgresql.writer_connection import AnswerLostError, Writer
from birthmark.store.table_statements import insert, upsert
from birthmark.store.unit_of_work import Changes
from birthmark.supervised_tasks import cancel_and_wait


class AutocommitConnection:
    """A connection that is opened on first use and reopened automatically."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def run(self, sql: str, *arguments: Any) -> bool:
        """Run a statement and return whether it affected a row. Raise the errors of asyncpg."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            told: str = await self._connection.execute(sql, *arguments)
        return not told.endswith(" 0")  # "UPDATE 1"

    def close(self) -> None:
        """Close the connection without waiting for its requests."""
        if self._connection is not None:
            self._connection.terminate()


log = logging.getLogger(__name__)

_ADD_EVENT, _ADD_AUDIT, _SIGN = insert(outbox), insert(audit), upsert(audit_heads)
_DISCARD = statement(delete(outbox).where(outbox.c.worker == bindparam("worker"), outbox.c.seq <= bindparam("upto")))
_ENDS = (
    "SELECT (SELECT max(seq) FROM outbox WHERE worker = $1) AS events, a.seq, a.digest FROM (SELECT 1) AS one "
    "LEFT JOIN (SELECT seq, digest FROM audit WHERE chain = $1 ORDER BY seq DESC LIMIT 1) AS a ON true"
)
_HEADS = "SELECT chain, seq, at, digest, signature, others FROM audit_heads"
_EVENTS = "SELECT seq, kind, body FROM outbox WHERE worker = $1 AND seq > $2 ORDER BY seq LIMIT $3"
# A session lost on our side but not in PostgreSQL must release its locks.
_LET_GO = {
    "idle_in_transaction_session_timeout": "15s",  # ours are idle in an empty one between two batches
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_READERS = 8  # connections
_LOOK_S = 2.0
_CLOSE_S, _PAUSE_S, _LEAST_S = 5.0, 0.5, 0.1
_ATTEMPTS = 3
_VIOLATIONS = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""Errors of one change, such as a text too long for an index; others of the batch are committed."""
_MAX = 2**63
_MAX_AUDIT_BYTES = 2000
"""Length of an actor, action or subject in UTF-8; they are indexed, and PostgreSQL limits index rows to 2,704 bytes."""


class PostgresUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "store.postgresql_unavailable"
    cause = "PostgreSQL rejected the request: {reason}."
    fix = "Check that PostgreSQL is running and that the URL, user, and password are correct. Then retry."
    for_a_person = "the database server has to be fixed"
    reason: object
    may_be_kept: bool = False


class _EndsMovedError(Exception):
    """The audit chain or the outbox has moved: a commit whose response was lost was stored."""


class PostgresDatabase:
    """A `Database` on a PostgreSQL server."""

    def __init__(
        self,
        pool: Any,
        writers: tuple[Writer, AutocommitConnection],
        clock: Clock,
        worker: str,
        signer: signed_audit_chain.HeadSigner | None = None,
    ) -> None:
        self._signer = signer
        self._pool = pool
        self._turns, self._backlog = FairSemaphore(_READERS), Backlog.running()
        self._writer, self._beside = writers
        self._clock = clock
        self.worker = worker
        self.seal: ColumnCipher | None = None
        self._group = GroupCommit(lambda batch: asyncio.ensure_future(self._run(batch)))
        self._discard = 0
        self._seq = 0
        self._digest = signed_audit_chain.GENESIS
        self._events = 0
        self._are_ends_known = False
        self._is_closing = False
        self._others = signed_audit_chain.OtherChains(worker, signer)
        self._looking: asyncio.Task[None] | None = None
        for own in (_ADD_EVENT, _ADD_AUDIT, _SIGN, _DISCARD):
            self._plan(own)

    @classmethod
    async def open(
        cls, url: str, clock: Clock, worker: str, signer: signed_audit_chain.HeadSigner | None = None
    ) -> Self:
        """Connect and migrate to this version's schema."""
        settings = {"synchronous_commit": "on", "application_name": "birthmark"}
        writing = {**settings, **_LET_GO}
        writer = Writer(partial(asyncpg.connect, url, **OPTIONS, server_settings=writing), worker)
        with translated():
            pool = await asyncpg.create_pool(
                url, min_size=0, max_size=_READERS, reset=_skip_reset, **OPTIONS, server_settings=settings
            )
            async with pool.acquire() as connection:
                await schema_migration.upgrade_postgresql(connection)
        beside = AutocommitConnection(partial(asyncpg.connect, url, **OPTIONS, server_settings=settings))
        return cls(pool, (writer, beside), clock, worker, signer)

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
        compiled = statement.compiled("postgresql")
        row = await self._read("fetchrow", compiled.sql, *compiled.arguments(params, self.seal))
        return row if row is None or self.seal is None or not compiled.opened else self.seal.row(compiled.opened, row)

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        compiled = statement.compiled("postgresql")
        rows: Sequence[Row] = await self._read("fetch", compiled.sql, *compiled.arguments(params, self.seal))
        return rows if self.seal is None or not compiled.opened else self.seal.rows(compiled.opened, rows)

    async def read_in_background(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        return await self.all(statement, **params)  # PostgreSQL reads in its own process

    async def write_outside_batch(self, statement: Statement, /, **params: Any) -> bool:
        compiled = statement.compiled("postgresql")
        with translated():
            write = partial(self._beside.run, compiled.sql, *compiled.arguments(params, self.seal))
            return await patiently(write, HEARTBEAT_PAUSE_S)

    async def events_after(self, last: int, limit: int) -> Sequence[Row]:
        rows: Sequence[Row] = await self._read("fetch", _EVENTS, self.worker, last, limit)
        return rows

    def discard_events(self, upto: int) -> None:
        self._discard = upto

    def on_events(self, hear: Hear) -> None:
        self._group.sharing.hearers.append(hear)

    async def durability(self) -> str:
        return str(await self._read("fetchval", "SHOW synchronous_commit"))

    def find_disk_full_error(self) -> None:
        """Return None: the disk belongs to another machine."""

    async def is_reachable(self) -> bool:
        asking: asyncio.Task[Any] = asyncio.get_running_loop().create_task(self._ask("fetchval", "SELECT 1"))
        await asyncio.wait({asking}, timeout=_LOOK_S)
        if asking.done():
            return asking.exception() is None
        asking.cancel()  # the request to the server may be slow
        asking.add_done_callback(lambda over: over.cancelled() or over.exception())
        return False

    async def before_close(self) -> None:
        until = asyncio.get_running_loop().time() + PATIENCE_S
        while not await self.is_reachable():
            if asyncio.get_running_loop().time() > until:
                log.warning("store.given_up", extra={"reason": f"no answer for {PATIENCE_S:g} s"})
                self._is_closing = True
                self._pool.terminate()
                self._writer.cut()
                return
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        settled = asyncio.get_running_loop().create_task(self._group.settled())
        await asyncio.wait({settled}, timeout=PATIENCE_S)
        self._is_closing = True
        if not settled.done():  # connection dead without an error
            self._writer.cut()
            await settled
        await cancel_and_wait(self._looking)
        await self._writer.close()
        self._beside.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._pool.close()

    async def _read(self, method: str, sql: str, *arguments: Any) -> Any:
        with translated():
            return await patiently(partial(self._ask, method, sql, *arguments))

    async def _ask(self, method: str, sql: str, *arguments: Any) -> Any:
        """Run a query once; a timeout while waiting for a connection counts as an unavailable server."""
        if self._is_closing:
            raise PostgresUnavailableError(reason="it is closed")
        until = (loop := asyncio.get_running_loop()).time() + PATIENCE_S
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout_at(until):
                    await stack.enter_async_context(self._turns.of(self._backlog.current_owner))
                left = max(until - loop.time(), _LEAST_S)
                connection = await stack.enter_async_context(self._pool.acquire(timeout=left))
                return await getattr(connection, method)(sql, *arguments)
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a pool error hid the cancellation
                raise asyncio.CancelledError from error
            raise

    async def _run(self, batch: Batch) -> Outcomes:
        """Commit the batch; wait for an unavailable server if nothing was committed."""
        async with self._writer:
            for _ in range(_ATTEMPTS):
                try:
                    return await patiently(partial(self._attempt, batch))
                except _EndsMovedError:
                    continue
                except AnswerLostError as error:
                    return self._failed(batch, error.__cause__, may_be_kept=True)
                except (*TROUBLE, PostgresUnavailableError) as error:
                    return self._failed(batch, error)
            return self._failed(batch, "its audit chain or outbox is written by another")

    def _failed(self, batch: Batch, reason: object, *, may_be_kept: bool = False) -> Outcomes:
        told = "a value of another kind" if isinstance(reason, asyncpg.DataError) else reason  # quotes the values
        log.error("store.commit_failed", extra={"reason": f"{type(reason).__name__}: {told}"})
        failed = PostgresUnavailableError(reason=told, may_be_kept=may_be_kept)
        return [failed] * len(batch)

    async def _attempt(self, batch: Batch) -> Outcomes:
        """Commit the batch as one; if a change is refused, the others without it, and if more are, each separately."""
        if self._is_closing:
            raise PostgresUnavailableError(reason="it is closed")
        await self._writer.connect()
        if not self._are_ends_known:
            await self._look_at_ends()
        before, discarded = self._ends(), self._discard
        try:
            outcomes: Outcomes = [None] * len(batch)
            groups = await self._run_together(batch, discarded)
            while groups:
                self._set_ends(before)
                await self._writer.roll_back()
                outcomes, groups = await self._run_separately(batch, discarded, groups)
            self._are_ends_known = False  # until COMMIT is answered
            await self._writer.commit()
        except AnswerLostError:
            self._writer.drop()
            raise
        except BaseException:
            self._set_ends(before)
            await self._writer.recover()
            raise
        self._are_ends_known = True
        if self._discard == discarded:
            self._discard = 0
        return outcomes

    async def _run_together(self, batch: Batch, discarded: int) -> Sequence[range]:
        """Run every change of the batch; if any is refused, return the groups to run in a savepoint each."""
        steps, ends = BatchSteps(), []
        try:
            self._add_discard(steps, discarded)
            first = self._seq
            for changes, _ in batch:
                self._add_writes(steps, changes)
                self._add_own(steps, changes)
                ends.append(len(steps))
            self._add_counts(steps, [changes for changes, _ in batch])
            self._add_head(steps, first)
            await self._writer.begin()
            refused = await self._writer.run(steps)
        except (*_VIOLATIONS, UnicodeEncodeError):
            return _each(batch)
        if refused is None:
            return ()
        at = bisect_right(ends, refused)
        return [group for group in (range(at), range(at, at + 1), range(at + 1, len(batch))) if group]

    async def _run_separately(
        self, batch: Batch, discarded: int, groups: Sequence[range]
    ) -> tuple[Outcomes, Sequence[range]]:
        """Run each group in a separate savepoint, then the audit rows and events of the successful changes.

        If a group of several changes is refused, return the groups to run instead.
        """
        outcomes: list[BirthmarkError | None] = [None] * len(batch)
        if len(groups) == len(batch):
            outcomes = [_find_unstorable_value(changes) for changes, _ in batch]
        tried = [group for group in groups if outcomes[group[0]] is None]
        steps, ends = BatchSteps(), []
        for group in tried:
            for number in group:
                self._add_writes(steps, batch[number][0])
            ends.append(len(steps))
        await self._writer.begin()
        begun = 0
        for group, how, end in zip(tried, await self._writer.run_apart(steps, ends), ends, strict=True):
            if how and len(group) > 1:
                return outcomes, _each(batch)
            outcomes[group[0]] = _parse_refusal(how, batch[group[0]][0], begun)
            begun = end
        steps, first = BatchSteps(), self._seq
        self._add_discard(steps, discarded)
        kept = [changes for (changes, _), outcome in zip(batch, outcomes, strict=True) if outcome is None]
        for changes in kept:
            self._add_own(steps, changes)
        self._add_counts(steps, kept)
        self._add_head(steps, first)
        try:
            await self._writer.run(steps)
        except _VIOLATIONS as error:
            self._are_ends_known = False
            raise _EndsMovedError from error
        return outcomes, ()

    def _plan(self, statement: Statement) -> StatementPlan:
        return self._writer.plans.of(statement.compiled("postgresql"))

    def _add_writes(self, steps: BatchSteps, changes: Changes) -> None:
        for write in changes.writes:
            compiled = write.statement.compiled("postgresql")
            params = (
                self.seal.encrypt_parameters(compiled.sealed, write.params)
                if self.seal and compiled.sealed
                else write.params
            )
            steps.add(self._writer.plans.of(compiled), params, write.expect)

    def _add_own(self, steps: BatchSteps, changes: Changes) -> None:
        """Add the events, audit rows and counters of a change."""
        if not changes.events and not changes.audits and not changes.counts:
            return
        now = self._clock.micros()
        changes.number(self._events + 1, now)
        for event in changes.events:
            self._events += 1
            row = {"worker": self.worker, "seq": self._events, "kind": kind_of(type(event)), "entity": event.entity}
            row |= {"version": event.version, "body": encode_event(event), "at": now}
            steps.add(self._plan(_ADD_EVENT), row)
        for audited in changes.audits:
            self._seq += 1
            self._digest = signed_audit_chain.link(self._digest, self.worker, self._seq, now, audited)
            row = {"chain": self.worker, "seq": self._seq, "at": now, "actor": audited.actor, "action": audited.action}
            row |= {"subject": audited.subject, "detail": audited.detail, "digest": self._digest}
            steps.add(self._plan(_ADD_AUDIT), row)

    def _add_counts(self, steps: BatchSteps, changes: Sequence[Changes]) -> None:
        for (name, place, state, since), by in sorted(summed(changes).items()):
            row = {"name": name, "place": place, "state": state, "since": since, "worker": self.worker, "value": by}
            steps.add(self._plan(COUNT), row)

    def _add_discard(self, steps: BatchSteps, upto: int) -> None:
        if upto:
            steps.add(self._plan(_DISCARD), {"worker": self.worker, "upto": upto})

    def _add_head(self, steps: BatchSteps, first: int) -> None:
        """Sign the end of the chain if it differs from `first`."""
        if self._seq == first or self._signer is None:
            return
        now, others = self._clock.micros(), self._others.text
        signature = self._signer.sign(signed_audit_chain.head_body(self.worker, self._seq, now, self._digest, others))
        row = {"chain": self.worker, "seq": self._seq, "at": now, "digest": self._digest, "others": others}
        steps.add(self._plan(_SIGN), row | {"key": self._signer.public_key, "signature": signature})
        if self._clock.monotonic() >= self._others.look_again_at and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._refresh_other_chains())  # concurrently, for the next batch

    def _ends(self) -> tuple[int, bytes, int]:
        """Return the ends of the audit chain and the outbox."""
        return self._seq, self._digest, self._events

    def _set_ends(self, ends: tuple[int, bytes, int]) -> None:
        self._seq, self._digest, self._events = ends

    async def _look_at_ends(self) -> None:
        row = await self._writer.last_row(_ENDS, self.worker)
        self._seq, self._digest = (0, signed_audit_chain.GENESIS) if row["seq"] is None else (row["seq"], row["digest"])
        # Never reuse a number: those of delivered rows are gone with the rows.
        self._events = max(self._events, row["events"] or 0)
        self._are_ends_known = True
        await self._refresh_other_chains()

    async def _refresh_other_chains(self) -> None:
        """Read the ends of the other chains; if the server is unavailable, the known ones remain."""
        with contextlib.suppress(*TROUBLE, PostgresUnavailableError):
            self._others.note(await self._ask("fetch", _HEADS), self._clock.monotonic())


def _each(batch: Batch) -> Sequence[range]:
    """Return a group for each change."""
    return [range(number, number + 1) for number in range(len(batch))]


def _parse_refusal(how: str, changes: Changes, first: int) -> BirthmarkError | None:
    """Return why a change was refused, from the result of `RUN_APART`; its steps start at `first`."""
    kind, _, fact = how.partition(" ")
    if not kind:
        return None
    if kind == "step":
        return changes.writes[int(fact) - first].refusal()
    if fact.startswith("23"):
        return ChangedMeanwhileError(what="A record, or one that it needs,")
    return ValueRefusedError(reason=f"SQLSTATE {fact}")


def _find_unstorable_value(changes: Changes) -> BirthmarkError | None:
    """Return the error for a change with a value that no column accepts, if any."""
    written = [value for write in changes.writes for value in write.params.values()]
    audited = [text for row in changes.audits for text in (row.actor, row.action, row.subject, row.detail)]
    indexed = (text for row in changes.audits for text in (row.actor, row.action, row.subject))
    if any(len(text.encode(errors="surrogatepass")) > _MAX_AUDIT_BYTES for text in indexed):
        return ValueRefusedError(reason=f"a text of more than {_MAX_AUDIT_BYTES} bytes for the audit")
    try:
        told = [text for event in changes.events for text in (event.entity, encode_event(event))]
        for value in (*written, *audited, *told):
            if isinstance(value, str) and b"\0" in value.encode():
                return ValueRefusedError(reason="a text with NUL")
            if isinstance(value, int) and not -_MAX <= value < _MAX:
                return ValueRefusedError(reason="a number of more than 64 bits")
    except UnicodeEncodeError:
        return ValueRefusedError(reason="an unpaired surrogate")
    return None


async def _skip_reset(_connection: Any) -> None:
    """Skip asyncpg's session reset after each use, because reads leave no state."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.DataError as error:
        raise ValueRefusedError(reason="a value of another type") from error
    except TROUBLE as error:
        raise PostgresUnavailableError(reason=str(error) or "it does not respond") from error
