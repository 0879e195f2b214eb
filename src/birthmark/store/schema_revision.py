"""Schema revision of a database, read without changes to it or to its directory."""

import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from birthmark.errors import UnavailableError
from birthmark.store.compiled_statements import Statement
from birthmark.store.database import Row


class UnreadableDatabaseError(UnavailableError):
    """Cannot read the database."""

    code = "store.unreadable"
    cause = "The database {path} cannot be read: {reason}."
    fix = (
        "Pass a server's data directory with --data, and run the command as a user that can read the directory. "
        "Alternatively, restore a backup."
    )
    for_a_person = "permissions have to be granted"
    path: Path | str
    reason: object


class ReadOnlySqlite:
    """Runs queries on a database file, and never writes to it or its directory."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing file. Raise `UnreadableDatabaseError`."""
        last: sqlite3.Error | None = None
        # Without a write-ahead log the file is complete; opened in another mode, SQLite would create a log next to it.
        has_log = path.with_name(path.name + "-wal").exists()
        for mode in ("mode=ro", "immutable=1") if has_log else ("immutable=1",):
            try:
                connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
                connection.row_factory = sqlite3.Row
                connection.execute("SELECT version_num FROM alembic_version").fetchone()
            except sqlite3.Error as error:
                last = error
                continue
            return cls(connection, path)
        raise UnreadableDatabaseError(path=path, reason=last)

    async def all(self, statement: Statement, /, **params: Any) -> Sequence[Row]:
        """Return every row. Raise `UnreadableDatabaseError`."""
        compiled = statement.compiled("sqlite")
        try:
            return self._connection.execute(compiled.sql, compiled.arguments(params)).fetchall()
        except sqlite3.Error as error:
            raise UnreadableDatabaseError(path=self._path, reason=error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


_REVISION = "SELECT version_num FROM alembic_version"
_FACTS = "SELECT name, value FROM server_facts"
_WHOLE = "PRAGMA quick_check(1)"
_SQLITE = "sqlite:///"
_POSTGRES_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema and size of an existing database."""

    revision: str | None
    """None for a database without tables, or with tables of unknown revision."""
    has_tables: bool
    size_bytes: int
    """Size on disk with the write-ahead log; for PostgreSQL, as reported by the server."""
    facts: Mapping[str, str]
    """The server facts in the database."""


async def schema_of(url: str) -> Schema | None:
    """Return the schema of a database; None if there is no such file. Raise `UnavailableError`."""
    if url.startswith(_SQLITE):
        return _of_file(Path(url.removeprefix(_SQLITE)))
    return await _of_postgresql(url)


def _of_file(path: Path) -> Schema | None:
    log = path.with_name(path.name + "-wal")
    try:
        if not stat.S_ISREG((found := path.stat()).st_mode):
            raise UnreadableDatabaseError(path=path, reason="it is not a file")
        # As in `ReadOnlySqlite`: without a log the file is complete.
        if not (rest := log.stat().st_size if log.exists() else 0):
            return _read(path, "immutable=1", found.st_size)
        try:
            return _read(path, "mode=ro", found.st_size + rest)
        except sqlite3.OperationalError:  # SQLite reads a log only where it may write its index
            with tempfile.TemporaryDirectory() as directory:
                copy = Path(directory, path.name)
                shutil.copyfile(path, copy)
                shutil.copyfile(log, copy.with_name(log.name))
                return _read(copy, "mode=ro", found.st_size + rest)
    except FileNotFoundError:
        return None
    except (OSError, sqlite3.Error) as error:
        raise UnreadableDatabaseError(path=path, reason=error) from error


def _read(path: Path, mode: str, size: int) -> Schema:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as connection:
        tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        row = connection.execute(_REVISION).fetchone() if "alembic_version" in tables else None
        facts = dict(connection.execute(_FACTS).fetchall()) if "server_facts" in tables else {}
        if (found := connection.execute(_WHOLE).fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {found.splitlines()[-1]}")
    return Schema(None if row is None else str(row[0]), bool(tables - {"alembic_version"}), size, facts)


async def _of_postgresql(url: str) -> Schema:
    import asyncpg  # noqa: PLC0415 - load only the chosen engine's driver

    from birthmark.store.postgresql import translated  # noqa: PLC0415 - as above
    from birthmark.store.postgresql.outage_retry import OPTIONS  # noqa: PLC0415 - as above

    with translated():
        connection = await asyncpg.connect(url, **OPTIONS)
        try:
            await connection.transaction(readonly=True).start()
            tables = {str(row[0]) for row in await connection.fetch(_POSTGRES_TABLES)}
            revision = await connection.fetchval(_REVISION) if "alembic_version" in tables else None
            rows = await connection.fetch(_FACTS) if "server_facts" in tables else []
            size = int(await connection.fetchval("SELECT pg_database_size(current_database())"))
        finally:
            connection.terminate()
    facts = {str(row["name"]): str(row["value"]) for row in rows}
    return Schema(None if revision is None else str(revision), bool(tables - {"alembic_version"}), size, facts)
