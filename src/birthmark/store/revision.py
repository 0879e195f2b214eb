"""What schema a database has, looked up without changing anything in it or beside it."""

import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from birthmark.store.readonly import UnreadableDatabaseError

_REVISION = "SELECT version_num FROM alembic_version"
_FACTS = "SELECT name, value FROM server_facts"
_WHOLE = "PRAGMA quick_check(1)"
_SQLITE = "sqlite:///"
_POSTGRES_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


@dataclass(frozen=True, slots=True)
class Schema:
    """What is there."""

    revision: str | None
    """None for a database without tables, and for one whose tables nobody said the revision of."""
    has_tables: bool
    size_bytes: int
    """On disk, with the write-ahead log; of PostgreSQL, as it says itself."""
    facts: Mapping[str, str]
    """What the database knows of its server."""


async def schema_of(url: str) -> Schema | None:
    """Return it; None where there is no such file. Raise `UnavailableError`."""
    if url.startswith(_SQLITE):
        return _of_file(Path(url.removeprefix(_SQLITE)))
    return await _of_postgresql(url)


def _of_file(path: Path) -> Schema | None:
    log = path.with_name(path.name + "-wal")
    try:
        if not stat.S_ISREG((found := path.stat()).st_mode):
            raise UnreadableDatabaseError(path=path, reason="it is no file")
        # As `ReadOnlySqlite`: without a log the file is all there is.
        if not (rest := log.stat().st_size if log.exists() else 0):
            return _read(path, "immutable=1", found.st_size)
        try:
            return _read(path, "mode=ro", found.st_size + rest)
        except sqlite3.OperationalError:  # SQLite reads a log where it may write an index of it beside
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
    import asyncpg  # noqa: PLC0415 - only the chosen engine's driver is loaded

    from birthmark.store.postgresql import translated  # noqa: PLC0415 - as above
    from birthmark.store.postgresql.session import OPTIONS  # noqa: PLC0415 - as above

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
