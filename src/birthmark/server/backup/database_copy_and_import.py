"""Consistent copies of a live database, and their import into an empty database of either engine.

SQLite is copied as a file, with its online backup API. PostgreSQL tables are read in one snapshot: each row is an array
of text, number and binary columns, in chunks that fit in memory.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Table, true

from birthmark.clock_and_entropy import Clock
from birthmark.errors import ConflictError
from birthmark.ownership_and_sudo_commands import acting_for, transfer_ownership
from birthmark.server.all_tables import TABLES
from birthmark.server.data_dir import UNFINISHED
from birthmark.store import Changes, Database, empty, hold_database, insert, open_database, schema_migration, upsert
from birthmark.store.compiled_statements import Statement
from birthmark.store.core_tables import audit, server_facts
from birthmark.store.sqlite import DatabaseUnavailableError
from birthmark.store.table_statements import find, remove

SQLITE = "sqlite:///"
_ROWS, _BYTES = 500, 8 * 1024 * 1024
"""Maximum rows and bytes of a page; a single telemetry row may have four million bytes."""
_PREFETCH = 16
_LENGTH_BYTES = 8
_CLOSE_S = 5.0
_ENDED = "restore.ended"
_REVISION = "SELECT version_num FROM alembic_version"
_THERE = (
    "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'alembic_version' ORDER BY 1"
)


class DatabaseNotEmptyError(ConflictError):
    """The database is not empty."""

    code = "server.database_not_empty"
    cause = "The target database of the restore contains rows, so it is or was in use."
    fix = "Restore to a file in the new data directory: `{command}`."
    command: str = "birthmark server restore FILE --data DIRECTORY"


class TablesDifferError(ConflictError):
    """The database's tables are not those of a server."""

    code = "server.tables_differ"
    cause = "The tables of the database differ from those of a server of this version: {names}."
    fix = (
        "Move other applications' tables to another database or schema: `psql DATABASE -c 'ALTER TABLE "
        "NAME SET SCHEMA OTHER'`. If tables are missing, restore an earlier backup."
    )
    names: str


def copy_sqlite(path: Path, to: Path) -> str:
    """Copy the database file at one point in time to a new file; return its revision.

    Raise `DatabaseUnavailableError`, for example if the disk has no space for a second copy.
    """
    to.touch(mode=0o600)
    try:
        with closing(_opened_to_read(path)) as source, closing(sqlite3.connect(to)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            return str(target.execute(_REVISION).fetchone()[0])
    except sqlite3.Error as error:
        where = f"{path}, or its temporary copy for the backup,"
        raise DatabaseUnavailableError(where=where, reason=error) from error


def _opened_to_read(path: Path) -> sqlite3.Connection:
    """Return a connection that has opened all its files."""
    with acting_for(path):
        source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        source.execute("PRAGMA schema_version").fetchone()
        return source


async def dump_postgresql(url: str, folder: Path) -> tuple[str, list[str]]:
    """Write a file for each table of the database in one snapshot; return the revision and the tables.

    Raise `PostgresUnavailableError`, `TablesDifferError`.
    """
    import asyncpg

    from birthmark.store.postgresql import translated
    from birthmark.store.postgresql.outage_retry import OPTIONS, TROUBLE

    with translated():
        connection = await asyncpg.connect(url, **OPTIONS)
    try:
        dumped = await _dumped(connection, folder)
        with contextlib.suppress(*TROUBLE):
            await connection.close(timeout=_CLOSE_S)
        return dumped
    finally:
        connection.terminate()  # a graceful close would wait for a silent server


async def _dumped(connection: Any, folder: Path) -> tuple[str, list[str]]:
    from birthmark.store.postgresql import translated

    with translated():
        await connection.transaction(isolation="repeatable_read", readonly=True).start()
        revision = str(await connection.fetchval(_REVISION))
        tables = [str(row[0]) for row in await connection.fetch(_THERE)]
    if revision == schema_migration.newest():
        _check_tables(tables)
    for table in tables:
        with translated():
            asked = await connection.prepare(f'SELECT * FROM "{table}"')  # noqa: S608 - names from the database
            cursor = await asked.cursor()
        with (folder / f"{table}.rows").open("xb") as file:
            _write(file, [column.name for column in asked.get_attributes()])
            page = _Page()
            while records := await _next(cursor):
                for record in records:
                    if page.is_full_with(record):
                        _write(file, page.taken())
            _write(file, page.taken())
    return revision, tables


async def _next(cursor: Any) -> Sequence[Any]:
    from birthmark.store.postgresql import translated

    with translated():  # not for disk errors
        rows: Sequence[Any] = await cursor.fetch(_PREFETCH)
        return rows


def _check_tables(there: Sequence[str]) -> None:
    """Raise `TablesDifferError` unless these are exactly the tables of this version."""
    if differ := sorted(TABLES.keys() ^ set(there)):
        raise TablesDifferError(names=", ".join(f"{one} is {_is(one in TABLES)}" for one in differ))


def _is(is_ours: bool) -> str:
    return "missing" if is_ours else "another's"


@contextlib.asynccontextmanager
async def open_exclusively(url: str, clock: Clock, worker: str) -> AsyncIterator[Database]:
    """Open a database exclusively, without use by a server or another restore.

    Files that root creates in another user's directory finally belong to that user.
    """
    hold = await hold_database(url)
    try:
        database = await open_database(url, clock, worker=worker)
        try:
            yield database
        finally:
            await database.close()
    finally:
        await hold.release()
        if url.startswith(SQLITE):
            file = Path(url.removeprefix(SQLITE)).absolute()  # noqa: ASYNC240 - once, at end
            for ending in ("", "-wal", "-shm", ".lock"):
                transfer_ownership(file.with_name(file.name + ending), file.parent)


async def claim_database(database: Database, restore: str) -> None:
    """Claim an empty database for a restore, or empty one that an unfinished restore claimed.

    The database records the restore that owns it.

    Raise `DatabaseNotEmptyError`.
    """
    changes = Changes()
    if await database.one(_FACT, name=UNFINISHED) is not None:
        for table in TABLES.values():
            if table is not server_facts:  # it marks the unfinished copy
                await database.commit(Changes().run(empty(table)))
        changes.run(empty(server_facts))
    else:
        for any_row in _ANY_ROW:
            if await database.one(any_row) is not None:
                raise DatabaseNotEmptyError
    await database.commit(changes.run(_NOTE, name=UNFINISHED, value=restore))


async def release_database(database: Database, restore: str) -> None:
    """Release the database to its server after the restore is complete, and record the restore."""
    await database.commit(Changes().run(_FORGET, name=UNFINISHED).run(_NOTE, name=_ENDED, value=restore))


async def is_released(database: Database, restore: str) -> bool | None:
    """Return whether this restore released the database; False if it still owns it, None if another does."""
    for name, is_over in ((_ENDED, True), (UNFINISHED, False)):
        row = await database.one(_FACT, name=name)
        if row is not None and row["value"] == restore:
            return is_over
    return None


async def load(database: Database, folder: Path, sqlite_file: Path | None) -> None:
    """Insert all rows into an empty database, from the files of `dump_postgresql` or from a SQLite file.

    They replace the rows that the schema was created with.
    """
    for table in TABLES.values():
        into, is_first = insert(table), table is not server_facts  # it names the database's owner
        async for columns, rows in rows_of(table, folder, sqlite_file):
            if is_first and rows:
                await database.commit(Changes().run(empty(table)))
                is_first = False
            await _insert(database, into, columns, rows)


def rows_of(
    table: Table, folder: Path, sqlite_file: Path | None
) -> AsyncIterator[tuple[Sequence[str], Sequence[Sequence[Any]]]]:
    """Yield the columns and chunks of rows of a table, from the source of `load`."""
    if sqlite_file is None:
        return _rows_of_file(folder / f"{table.name}.rows")
    return _rows_of_sqlite(sqlite_file, table)


_ANY_ROW = [find(table, true(), limit=1) for table in (audit, server_facts)]
_FACT, _NOTE, _FORGET = find(server_facts), upsert(server_facts), remove(server_facts)


async def _insert(database: Database, into: Statement, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    page = _Page()
    for number, row in enumerate(rows, 1):
        if page.is_full_with(row) or number == len(rows):
            changes = Changes()
            for one in page.taken():
                changes.run(into, **dict(zip(columns, one, strict=True)))
            await database.commit(changes)


async def _rows_of_file(path: Path) -> AsyncIterator[tuple[Sequence[str], Sequence[Sequence[Any]]]]:
    with path.open("rb") as file:
        columns: list[str] = _read(file)
        while rows := _read(file):
            yield columns, rows


async def _rows_of_sqlite(path: Path, table: Table) -> AsyncIterator[tuple[Sequence[str], Sequence[Sequence[Any]]]]:
    columns = [str(column.name) for column in table.columns]
    listed = ", ".join(f'"{name}"' for name in columns)
    with closing(sqlite3.connect(path)) as connection:
        cursor = connection.execute(f'SELECT {listed} FROM "{table.name}"')  # noqa: S608 - fixed names
        while rows := cursor.fetchmany(_PREFETCH):
            yield columns, rows


class _Page:
    """Rows that are processed together."""

    def __init__(self) -> None:
        self._rows: list[list[Any]] = []
        self._size = 0

    def is_full_with(self, row: Sequence[Any]) -> bool:
        """Add a row and return whether the page is full."""
        self._rows.append(list(row))
        self._size += sum(len(value) for value in row if isinstance(value, bytes | str))
        return len(self._rows) >= _ROWS or self._size >= _BYTES

    def taken(self) -> list[list[Any]]:
        """Return the rows and start a new page."""
        rows, self._rows, self._size = self._rows, [], 0
        return rows


def _write(file: Any, value: object) -> None:
    data = msgspec.msgpack.encode(value)
    file.write(len(data).to_bytes(_LENGTH_BYTES) + data)


def _read(file: Any) -> Any:
    head = file.read(_LENGTH_BYTES)
    return msgspec.msgpack.decode(file.read(int.from_bytes(head))) if head else []
