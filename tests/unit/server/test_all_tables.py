"""Whoever copies the database knows every table of it, whatever else is imported."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

from birthmark.store import schema_migration

COLD = (
    "import json; from birthmark.server.backup.database_copy_and_import import TABLES; "
    "print(json.dumps(sorted(TABLES)))"
)


def test_a_backup_by_itself_knows_every_table_of_the_schema(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    schema_migration.upgrade_sqlite(connection)
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    known = subprocess.run([sys.executable, "-c", COLD], check=True, capture_output=True, text=True).stdout
    assert set(json.loads(known)) == there - {"alembic_version", "sqlite_sequence"}
