"""A database file read without changing it: for commands that look while no server runs."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from birthmark.errors import UnavailableError
from birthmark.store.database import Row
from birthmark.store.statements import Statement


class UnreadableDatabaseError(UnavailableError):
    """Cannot read the database."""

    code = "store.unreadable"
    cause = "The database {path} cannot be read: {reason}."
    fix = "Give the data directory of a server with --data, as a user that may read it, or restore a backup."
    for_a_person = "rights have to be given"
    path: Path | str
    reason: object


class ReadOnlySqlite:
    """Answers statements from a file, and never writes to it or beside it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing file. Raise `UnreadableDatabaseError`."""
        last: sqlite3.Error | None = None
        # Without a write-ahead log the file is all there is; opened otherwise, SQLite would put a log beside it.
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
        """Let go of the file."""
        self._connection.close()
