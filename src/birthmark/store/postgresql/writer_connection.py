"""The writing connection: it reconnects automatically, and each commit opens the next transaction.

`COMMIT AND CHAIN` is one round trip and one statement, so that a batch needs two: the call and the commit. An idle
connection ends its empty transaction shortly, because sessions that are idle in a transaction trigger monitoring
alerts.
"""

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from birthmark.store.postgresql.batch_functions import PREPARE, RUN, RUN_APART, WAIT, BatchSteps, StatementPlans
from birthmark.store.postgresql.outage_retry import AWAY, TROUBLE

log = logging.getLogger(__name__)

LINGER_S = 1.0
_CLOSE_S = 5.0


class AnswerLostError(Exception):
    """COMMIT was sent, and its result is unknown."""


def _is_shutting_down(error: BaseException | None) -> bool:
    """Return whether the server reported its shutdown; asyncpg sets this as the cause of a lost connection."""
    return error is not None and (isinstance(error, asyncpg.AdminShutdownError) or _is_shutting_down(error.__cause__))


class Writer:
    """A database session with its functions, and at most one transaction."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], worker: str) -> None:
        self._connect = connect
        self._worker_lock = zlib.crc32(worker.encode()) - 2**31
        self._connection: Any = None
        self._lock = asyncio.Lock()
        self._lingering: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self.plans = StatementPlans()

    async def __aenter__(self) -> None:
        """Acquire the writer for a batch."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._linger)

    async def connect(self) -> None:
        """Open a session unless one is open."""
        if self._connection is None or self._connection.is_closed():
            self._connection = None
            connection = await self._connect()
            try:
                await connection.execute(PREPARE)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
            self.plans.forget()

    async def begin(self) -> None:
        """Start an empty transaction in a session that has every plan; no transaction may be open."""
        if definition := self.plans.definition():
            if self._connection.is_in_transaction():
                await self._connection.execute("COMMIT")  # of nothing
            try:  # no disk sync needed: it is gone with the session
                await self._connection.execute(f"BEGIN; SET LOCAL synchronous_commit = off;\n{definition}\nCOMMIT")
            except TROUBLE as error:
                if not isinstance(error, AWAY):
                    self.plans.drop_new()  # only the caller with the invalid statement gets an error
                raise
            self.plans.defined()
        if not self._connection.is_in_transaction():
            await self._connection.execute("BEGIN")

    async def run(self, steps: BatchSteps) -> int | None:
        """Run steps; return the first one without its required row count, if any. Raise on a violation."""
        refused: int = await self._connection.fetchval(RUN, *steps.arguments(), self._worker_lock)
        return None if refused < 0 else refused

    async def run_apart(self, steps: BatchSteps, ends: Sequence[int]) -> Sequence[str]:
        """Run the steps of each group separately; return the results in the format of `RUN_APART`."""
        outcomes: Sequence[str] = await self._connection.fetchval(
            RUN_APART, *steps.arguments(), self._worker_lock, ends
        )
        return outcomes

    async def last_row(self, sql: str, *arguments: Any) -> Any:
        """Return a row as it is after every commit of this worker, including those of lost sessions."""
        await self._connection.execute(WAIT, self._worker_lock)
        return await self._connection.fetchrow(sql, *arguments)

    async def roll_back(self) -> None:
        """Roll back a transaction, if one is open, and start another."""
        if self._connection.is_in_transaction():
            await self._connection.execute("ROLLBACK AND CHAIN")

    async def commit(self) -> None:
        """Commit the transaction.

        Raise `AnswerLostError` if the result is unknown; after any other error, nothing is committed.
        """
        if self._connection.is_closed():
            raise asyncpg.InterfaceError("the connection is closed")  # nothing was sent
        try:
            await self._connection.execute("COMMIT AND CHAIN")
        except TROUBLE as error:
            if isinstance(error, asyncpg.InternalClientError) or _is_shutting_down(error):
                raise  # nothing was sent, or the server ended the session before it processed COMMIT
            raise AnswerLostError from error

    async def recover(self) -> None:
        """Prepare for the next batch after a failed one."""
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self.roll_back()
            except TROUBLE:
                self.drop()

    def drop(self) -> None:
        """Abandon a session whose state is unreliable."""
        self.cut()
        self._connection = None

    def cut(self) -> None:
        """Terminate the session during any operation."""
        if self._connection is not None:
            self._connection.terminate()

    async def close(self) -> None:
        """End the session."""
        if self._lingering is not None:
            self._lingering.cancel()
        if self._ending is not None:
            await asyncio.wait({self._ending}, timeout=_CLOSE_S)
            if not self._ending.done():
                self.cut()
                await self._ending
        if self._connection is not None:
            with contextlib.suppress(*TROUBLE):
                await self._connection.close(timeout=_CLOSE_S)

    def _linger(self) -> None:
        self._lingering = None
        self._ending = asyncio.get_running_loop().create_task(self._end_empty())

    async def _end_empty(self) -> None:
        async with self._lock:
            connection = self._connection
            if connection is None or connection.is_closed() or not connection.is_in_transaction():
                return
            try:
                await connection.execute("COMMIT")
            except TROUBLE as error:
                log.info("store.session_lost", extra={"reason": str(error)})
