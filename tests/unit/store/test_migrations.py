"""The migrations lead to the tables that the code defines."""

import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from birthmark.server.tables import TABLES
from birthmark.store import metadata, migrate


def test_the_migrated_schema_is_the_one_the_rooms_define(tmp_path: Path) -> None:
    assert TABLES
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    migrate.upgrade_sqlite(connection)
    connection.close()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as opened:
        assert compare_metadata(MigrationContext.configure(opened), metadata) == []
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(migrate.SchemaTooNewError):
        migrate.upgrade_sqlite(connection)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    connection.close()
    assert tables == ["alembic_version"]


def test_jobs_of_an_earlier_version_stay_as_they_were() -> None:
    before = import_module("birthmark.store.migrations.0049_job_files").down_revision
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate.upgrade_sqlite(connection)
        for table, columns in {
            "aws_jobs": ("source", "parameters", "paused_at"),
            "aws_job_templates": ("source",),
        }.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("DROP TABLE hub_routing")  # these came after
        connection.execute("ALTER TABLE aws_thing_group_members DROP COLUMN joined_at")
        connection.execute("DROP INDEX ca_names_lost")
        named = {row[1]: row[2] for row in connection.execute("PRAGMA table_info(aws_jobs)")}
        values = ["{}" if kind == "TEXT" else 1 for kind in named.values()]
        connection.execute(f"INSERT INTO aws_jobs ({', '.join(named)}) VALUES ({', '.join('?' * len(named))})", values)
        connection.execute("UPDATE alembic_version SET version_num = ?", (before,))
        migrate.upgrade_sqlite(connection)
        found = connection.execute("SELECT document, source, parameters, paused_at FROM aws_jobs").fetchall()
    assert found == [("{}", None, "{}", None)]
