"""Write store/newest.sql, of which a new SQLite database is made, from what all revisions make of an empty one.

python tools/make_schema.py
"""

import sqlite3
from pathlib import Path

from birthmark.store import schema_migration

TARGET = Path(__file__).parent.parent / "src" / "birthmark" / "store" / "newest.sql"


def made_by_revisions() -> str:
    """Return the statements that make a database as the revisions make it; the version's own table is there before."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(schema_migration.VERSION)
    connection.executescript(schema_migration.rendered("sqlite", None))
    lines = [line for line in connection.iterdump() if line not in {"BEGIN TRANSACTION;", "COMMIT;"}]
    return "\n".join(line for line in lines if "CREATE TABLE alembic_version" not in line) + "\n"


if __name__ == "__main__":
    TARGET.write_text(made_by_revisions(), encoding="utf-8")
