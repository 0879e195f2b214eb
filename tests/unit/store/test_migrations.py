"""The migrations lead to the tables that the code defines."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from birthmark.server.all_tables import TABLES
from birthmark.store import metadata, schema_migration


def test_the_migrated_schema_is_the_one_the_rooms_define(tmp_path: Path) -> None:
    assert TABLES
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    schema_migration.upgrade_sqlite(connection)
    connection.close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as opened:
        assert compare_metadata(MigrationContext.configure(opened), metadata) == []
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(schema_migration.SchemaTooNewError):
        schema_migration.upgrade_sqlite(connection)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    connection.close()
    assert tables == ["alembic_version"]
