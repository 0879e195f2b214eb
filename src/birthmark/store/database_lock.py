"""Database locks: one server per database, or one per worker name. They end with the process.

Two servers of one name would each continue the audit chain and the outbox from the ends that they read, until one could
not write. Only a server holds its database; commands that open it in addition do not.

Workers share the lock of the database, which a single server or a restore holds exclusively. Each worker also holds a
lock of its name.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from birthmark import supervised_tasks
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ConflictError
from birthmark.store.database import Database
from birthmark.store.signed_audit_chain import HeadSigner

MAIN = "main"
"""Worker name of a single server; audit chains have used it since the first version."""


async def open_database(url: str, clock: Clock, *, worker: str = MAIN, signer: HeadSigner | None = None) -> Database:
    """Open `sqlite:///PATH` or `postgresql://…`, migrated to this version's schema.

    `worker` is the name of the committing worker, of its outbox and of its audit chain, whose heads `signer` signs.
    Raise `UnavailableError` if the engine cannot be opened.
    """
    if url.startswith("sqlite:///"):
        from birthmark.store.sqlite import SqliteDatabase  # noqa: PLC0415 - load only the chosen engine's driver

        return await SqliteDatabase.open(url.removeprefix("sqlite:///"), clock, worker, signer)
    if url.startswith(("postgresql://", "postgres://")):
        from birthmark.store.postgresql import PostgresDatabase  # noqa: PLC0415 - as above

        return await PostgresDatabase.open(url, clock, worker, signer)
    raise ValueError("the database URL must start with sqlite:/// or postgresql://")  # settings give a better error


Release = Callable[[], Awaitable[None]]
_Session = tuple[int, datetime]  # PostgreSQL process ID and start time, as IDs are reused

_PATIENCE = 40
_AGAIN_S = 1.0
_LOOK_S = 5.0  # a dead connection raises no event
_CLOSE_S = 5.0
_CONNECT_S = 5.0
_PAUSE_S = 0.05  # a stopped or killed server may soon release it
# Of the schema, not only of the database: a URL may name a schema, and each has its own chain.
_LOCK = "SELECT pg_try_advisory_lock(6254721, hashtext(coalesce(current_schema(), '')))"
_SHARE = "SELECT pg_try_advisory_lock_shared(6254721, hashtext(coalesce(current_schema(), '')))"
_LOCK_NAME = "SELECT pg_try_advisory_lock(6254722, hashtext(coalesce(current_schema(), '') || '/' || $1))"
_OWN = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
_SETTINGS = {
    "application_name": "birthmark serve",
    "tcp_keepalives_idle": "30",  # releases a lock after a minute if a machine loses power
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class DatabaseInUseError(ConflictError):
    """Another server uses this database."""

    code = "store.database_in_use"
    message = "Another server uses the database {where}"
    cause = "Another `birthmark serve` process uses the database {where}."
    fix = (
        "Stop that server first, or use another directory and database for this one: `birthmark serve "
        "--data birthmark-2 --database sqlite:///birthmark-2/birthmark.db --listen 127.0.0.2`."
    )
    where: str


class DatabaseLostError(ConflictError):
    """Another server acquired the database; cached data may be outdated."""

    code = "store.database_lost"
    message = "Another server acquired the database {where}"
    cause = (
        "This server lost its connection to the database {where}, and with it the lock, which another server "
        "acquired. This server stopped because its cached data may be outdated."
    )
    fix = (
        "Make sure that only one server uses the database, then start that server again: `birthmark serve`. To list "
        "the servers on this machine: `birthmark doctor`."
    )
    for_a_person = "the administrator has to choose the server"
    where: str


class DatabaseLock:
    """An exclusive lock on a database, until `release`.

    On PostgreSQL the lock ends with its connection and is acquired again. This is safe if no other server held it in
    between. To detect that, the holder writes its `token` into the database (`mark_noted`).
    """

    def __init__(self, release: Release, token: str = "", worker: str = "") -> None:
        self._release = release
        self.token = token
        self.fact = f"{HOLDER}.{worker}" if worker else HOLDER
        """Name of the server fact that stores the token."""
        self.is_held = True
        self.is_noted = False
        self.lost: asyncio.Future[DatabaseLostError] = asyncio.get_running_loop().create_future()
        """Completes when another server holds, or has held, the database."""

    async def release(self) -> None:
        """Release the lock."""
        self.is_held = False
        await self._release()

    __call__ = release

    def mark_noted(self) -> None:
        """Note that the database has the token; any later holder replaces it."""
        self.is_noted = True

    def lose(self, where: str) -> None:
        """Mark the lock as lost to another server."""
        self.is_held = False
        if not self.lost.done():
            self.lost.set_result(DatabaseLostError(where=where))


HOLDER = "server.holder"
_HELD_BY = "SELECT value FROM server_facts WHERE name = $1"


async def hold_database(url: str, token: str = "", worker: str = "") -> DatabaseLock:
    """Lock a database against other servers until the result is released; with `worker`, against others of that name.

    Raise `DatabaseInUseError`, or `UnavailableError` if the database cannot be reached.
    """
    if url.startswith("sqlite:///"):
        return await _hold_file(url.removeprefix("sqlite:///"))
    return await _hold_postgresql(url, token, worker)


async def _hold_file(path: str) -> DatabaseLock:
    from birthmark.store.sqlite import DatabaseUnavailableError  # noqa: PLC0415 - only the chosen engine's driver

    # A separate file: closing any descriptor of the database would drop SQLite's own locks on it.
    lock = Path(os.path.realpath(path) + ".lock")  # noqa: ASYNC240 - once, at start
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseUnavailableError(where=path, reason=error) from error

    async def take() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def release() -> None:
        os.close(descriptor)

    await _taken(take, release, path)
    return DatabaseLock(release)


async def _hold_postgresql(url: str, token: str, worker: str) -> DatabaseLock:
    ended = asyncio.Event()
    connection, session = await _locked(url, ended, worker)
    where = _place(url)

    async def release() -> None:
        await supervised_tasks.cancel_and_wait(keeping)
        await _close(connection)

    hold = DatabaseLock(release, token, worker)

    async def look() -> None:
        nonlocal connection, session
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await ended.wait()
        if not ended.is_set() and await _answers(connection):
            return
        hold.is_held = False  # PostgreSQL restarted or the connection died: the lock is gone
        await _close(connection)
        try:
            connection, session = await _locked(url, ended, worker, session)
            hold.is_held = not hold.is_noted or await _is_ours(connection, hold)
            if not hold.is_held:
                hold.lose(where)
        except DatabaseInUseError:
            hold.lose(where)

    async def keep() -> None:
        while not hold.lost.done():
            try:
                await look()
            except Exception as error:  # noqa: BLE001 - any error: the lock owner is unknown, so check again
                supervised_tasks.note("store.hold", error)
                hold.is_held = False
                ended.set()
                await asyncio.sleep(_AGAIN_S)

    keeping = asyncio.create_task(keep())
    return hold


async def _answers(connection: Any) -> bool:
    """Return whether the connection that holds the lock is alive."""
    from birthmark.store.postgresql.outage_retry import TROUBLE  # noqa: PLC0415 - as above

    try:
        await connection.fetchval("SELECT 1", timeout=_LOOK_S)
    except (*TROUBLE, TimeoutError):
        return False
    return True


async def _is_ours(connection: Any, hold: DatabaseLock) -> bool:
    """Return whether the database still has this holder's token."""
    from birthmark.store.postgresql import translated  # noqa: PLC0415 - as above

    with translated():
        return bool(await connection.fetchval(_HELD_BY, hold.fact) == hold.token)


def _place(url: str) -> str:
    """Return the display name of a database, without its password."""
    at = urlsplit(url)
    return f"{at.path.strip('/')} at {at.hostname or 'this machine'}"


async def _close(connection: Any) -> None:
    from birthmark.store.postgresql.outage_retry import TROUBLE  # noqa: PLC0415 - as above

    with contextlib.suppress(*TROUBLE, TimeoutError):
        await connection.close(timeout=_CLOSE_S)


async def _locked(url: str, ended: asyncio.Event, worker: str, before: _Session | None = None) -> tuple[Any, _Session]:
    """Return a dedicated connection that holds the lock, and its session; `ended` is set when the connection ends.

    This server's previous session `before` is terminated, because PostgreSQL may not have noticed that its connection
    is lost.
    """
    import asyncpg  # noqa: PLC0415 - as above

    from birthmark.store.postgresql import translated  # noqa: PLC0415 - as above
    from birthmark.store.postgresql.outage_retry import RetryingSession  # noqa: PLC0415 - as above

    with translated():
        connection: Any = await asyncpg.connect(
            url,
            server_settings=_SETTINGS,
            timeout=_CONNECT_S,
            command_timeout=_CONNECT_S,
            connection_class=RetryingSession,
        )

    async def take() -> bool:
        with translated():
            if not worker:
                return bool(await connection.fetchval(_LOCK))
            return bool(await connection.fetchval(_SHARE)) and bool(await connection.fetchval(_LOCK_NAME, worker))

    try:
        with translated():
            with contextlib.suppress(asyncpg.UndefinedObjectError):  # older than PostgreSQL 14
                await connection.execute("SET idle_session_timeout = 0")
            if before is not None:
                await connection.execute(_END, *before)
            session: _Session = tuple(await connection.fetchrow(_OWN))
    except BaseException:
        await _close(connection)
        raise
    await _taken(take, lambda: _close(connection), _place(url))
    ended.clear()
    connection.add_termination_listener(lambda _connection: ended.set())
    if connection.is_closed():
        ended.set()
    return connection, session


async def _taken(take: Callable[[], Awaitable[bool]], release: Release, where: str) -> None:
    try:
        for _ in range(_PATIENCE):
            if await take():
                return
            await asyncio.sleep(_PAUSE_S)
    except BaseException:
        await release()
        raise
    await release()
    raise DatabaseInUseError(where=where)
