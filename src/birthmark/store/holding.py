"""One server per database: a lock that ends with the process, however that ends.

Two servers of one name would each go on with the audit chain and the outbox where they read their ends, and soon one
could write nothing more. Only a server holds its database; commands that open one beside it do not.

Several workers on one database need more than names of their own: a lock for each name instead of this one, so that
none has two holders; leases in a table for what a worker owns; a bus that tells the others of what is committed before
the caller is answered (ADR 16); and one of them that takes over the outbox of a worker whose lease has run out. Until
then a database has one server.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from birthmark.errors import BirthmarkError, ConflictError

log = logging.getLogger(__name__)

Release = Callable[[], Awaitable[None]]

_PATIENCE = 40
_AGAIN_S = 1.0
_CLOSE_S = 5.0
_PAUSE_S = 0.05  # a server that was just stopped or killed may be about to let go
# Of the schema, not of the database alone: a URL may name one, and each has a chain of its own.
_LOCK = "SELECT pg_try_advisory_lock(6254721, hashtext(coalesce(current_schema(), '')))"
_SETTINGS = {
    "application_name": "birthmark serve",
    "tcp_keepalives_idle": "30",  # what a machine that lost its power held is free after a minute
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class DatabaseInUseError(ConflictError):
    """Another server runs on this database."""

    code = "store.database_in_use"
    message = "Another server runs on the database {where}"
    cause = "Another `birthmark serve` runs on the database {where}."
    fix = (
        "Stop that server first; or let this one have a directory and a database of its own: `birthmark serve --data"
        " birthmark-2 --database sqlite:///birthmark-2/birthmark.db --listen 127.0.0.2`."
    )
    where: str


async def hold_database(url: str) -> Release:
    """Keep other servers off this database until what is returned is called.

    Raise `DatabaseInUseError`, or `UnavailableError` when the database cannot be reached.
    """
    if url.startswith("sqlite:///"):
        return await _hold_file(url.removeprefix("sqlite:///"))
    return await _hold_postgresql(url)


async def _hold_file(path: str) -> Release:
    from birthmark.store.sqlite import DatabaseUnavailableError  # noqa: PLC0415 - only the chosen engine's driver

    # A file of its own: closing any descriptor of the database's would drop SQLite's own locks on it.
    lock = Path(os.path.realpath(path) + ".lock")  # noqa: ASYNC240 - once, at start
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
    return release


async def _hold_postgresql(url: str) -> Release:
    ended = asyncio.Event()
    connection = await _locked(url, ended)

    async def keep() -> None:
        nonlocal connection
        while True:
            await ended.wait()  # PostgreSQL was started anew, and the lock is gone
            try:
                connection = await _locked(url, ended)
            except BirthmarkError as error:
                log.error("store.database_not_held", extra={"reason": error.explain_cause()})  # noqa: TRY400 - told
                await asyncio.sleep(_AGAIN_S)

    keeping = asyncio.create_task(keep())

    async def release() -> None:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await _close(connection)

    return release


async def _close(connection: Any) -> None:
    import asyncpg  # noqa: PLC0415 - as above

    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await connection.close(timeout=_CLOSE_S)


async def _locked(url: str, ended: asyncio.Event) -> Any:
    """Return a connection that is not of the pool and has the lock; `ended` is set when it ends."""
    import asyncpg  # noqa: PLC0415 - as above

    from birthmark.store.postgresql import translated  # noqa: PLC0415 - as above

    with translated():
        connection: Any = await asyncpg.connect(url, server_settings=_SETTINGS)
        with contextlib.suppress(asyncpg.UndefinedObjectError):  # older than PostgreSQL 14
            await connection.execute("SET idle_session_timeout = 0")

    async def take() -> bool:
        with translated():
            return bool(await connection.fetchval(_LOCK))

    at = urlsplit(url)  # without the password
    await _taken(take, lambda: _close(connection), f"{at.path.strip('/')} at {at.hostname or 'this machine'}")
    ended.clear()
    connection.add_termination_listener(lambda _connection: ended.set())
    if connection.is_closed():
        ended.set()
    return connection


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
