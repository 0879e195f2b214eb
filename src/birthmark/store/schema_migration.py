"""Migrate a database to this version's schema with Alembic revisions.

The revisions (migrations/NNNN_*.py) are rendered to SQL for the engine and run in one transaction, so that a failed
upgrade changes nothing. The version is stored where Alembic's command line expects it.

A new SQLite database is created from newest.sql, if the build or `scripts/setup.sh` generated it from the revisions
with `tools/make_schema.py`. A database of this version needs no change. Neither case loads Alembic, which takes 200 ms
and 14 MB.
"""

import asyncio
import functools
import io
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from birthmark.errors import ConflictError

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent / "migrations"
_NEWEST = Path(__file__).parent / "newest.sql"
VERSION = "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
_TURN_S = 0.2
_LONGEST_S = 7 * 86400.0


class SchemaTooNewError(ConflictError):
    """The database was written by a newer Birthmark."""

    code = "store.schema_too_new"
    message = "The database has the unknown revision {revision}"
    cause = "The database is at revision {revision}, which this version of Birthmark does not support."
    fix = (
        "Run the newer version that upgraded the database. To list installed versions: `type -a birthmark`."
        " Alternatively, restore a backup from before the upgrade."
    )
    for_a_person = "you need a newer version or a backup"
    revision: str


def newest() -> str:
    """Return the schema revision of this version."""
    return _names()[-1]


def is_known(revision: str) -> bool:
    """Return whether this version can upgrade from a revision."""
    return any(one.revision == revision for one in _revisions())


def steps_after(revision: str | None) -> Sequence[tuple[str, str]]:
    """Return the steps from a known revision to the newest: each revision and its description."""
    revisions = _revisions()
    done = [one.revision for one in revisions].index(revision) + 1 if revision is not None else 0
    return [(str(one.revision), str(one.doc)) for one in revisions[done:]]


def script_for(engine: str, current: str | None) -> str | None:
    """Return the SQL from `current` to the newest revision, or None if the schema is current."""
    known = _names()
    if current is not None and current not in known:
        raise SchemaTooNewError(revision=current)
    if current == known[-1]:
        return None
    image = _image() if current is None and engine == "sqlite" else None
    return image or rendered(engine, current)


def _image() -> str | None:
    """Return the schema image of this version; None if the build made none, or one of another version."""
    try:
        image = _NEWEST.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return image if image.startswith(f"INSERT INTO \"alembic_version\" VALUES('{_names()[-1]}');") else None


def rendered(engine: str, current: str | None) -> str:
    """Return the SQL of the revisions after `current`."""
    from alembic.operations import Operations  # noqa: PLC0415 - see above
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - see above

    known = _names()
    todo = _revisions()[known.index(current) + 1 if current is not None else 0 :]
    buffer = io.StringIO()
    options = {"as_sql": True, "output_buffer": buffer, "literal_binds": True}
    context = MigrationContext.configure(dialect_name=engine, opts=options)
    with Operations.context(context):
        for revision in todo:
            revision.module.upgrade()
    last = todo[-1].revision
    buffer.write(f"DELETE FROM alembic_version;\nINSERT INTO alembic_version VALUES ('{last}');\n")  # noqa: S608 - a revision id of ours
    return buffer.getvalue()


@functools.cache
def _names() -> Sequence[str]:
    """Return the revision ids, oldest first; each file name begins with its id."""
    return sorted(one.name.partition("_")[0] for one in _HERE.glob("[0-9]*_*.py"))


def _revisions() -> Sequence[Any]:
    """Return all revisions as Alembic objects, oldest first."""
    from alembic.config import Config  # noqa: PLC0415 - see above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("version_locations", str(_HERE))
    config.set_main_option("path_separator", "os")
    return list(reversed(list(ScriptDirectory.from_config(config).walk_revisions())))


def upgrade_sqlite(connection: sqlite3.Connection) -> None:
    """Upgrade over a connection in autocommit mode."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(VERSION)
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        script = script_for("sqlite", row[0] if row else None)
        if script:
            for command in _commands(script):
                connection.execute(command)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


async def upgrade_postgresql(connection: Any) -> None:
    """Upgrade over an asyncpg connection; servers that start at the same time run it in sequence.

    The upgrade has no timeout; the connection's timeout applies only to the queries before it.
    """
    async with connection.transaction():
        while not await connection.fetchval("SELECT pg_try_advisory_xact_lock(6254721)"):  # noqa: ASYNC110 - another process has it
            await asyncio.sleep(_TURN_S)
        await connection.execute(VERSION)
        current = await connection.fetchval("SELECT version_num FROM alembic_version")
        if script := script_for("postgresql", current):
            if current is not None:
                log.warning("store.upgrading", extra={"revision": current})
            await connection.execute(script, timeout=_LONGEST_S)


def _commands(script: str) -> list[str]:
    """Split a script into statements, each of which runs inside the open transaction."""
    commands, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            commands.append(pending)
            pending = ""
    return commands
