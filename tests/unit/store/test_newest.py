"""A new database is made of an image of the newest schema: it is what all revisions make of an empty one."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from birthmark.store import schema_migration


def shape(script: str) -> tuple[list[tuple[object, ...]], dict[str, list[tuple[object, ...]]]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(schema_migration.VERSION)
    connection.executescript(script)
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    tables = [str(row[1]) for row in schema if row[0] == "table"]
    rows = {name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables}
    return schema, rows


def test_the_image_is_what_all_revisions_make() -> None:
    image = schema_migration.script_for("sqlite", None)
    assert image is not None
    assert shape(image) == shape(schema_migration.rendered("sqlite", None)), "run tools/make_schema.py"


def test_without_an_image_the_revisions_make_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_migration, "_NEWEST", made := tmp_path / "newest.sql")
    assert schema_migration.script_for("sqlite", None) == schema_migration.rendered("sqlite", None)
    made.write_text("INSERT INTO \"alembic_version\" VALUES('0001');\n")  # of another version
    assert schema_migration.script_for("sqlite", None) == schema_migration.rendered("sqlite", None)


def test_the_names_of_the_files_are_the_revisions() -> None:
    assert list(schema_migration._names()) == [one.revision for one in schema_migration._revisions()]


def test_what_is_new_or_of_this_version_loads_no_alembic() -> None:
    program = (
        "import sqlite3, sys; from birthmark.store.schema_migration import newest, script_for; "
        "script_for('sqlite', None); script_for('postgresql', newest()); print('alembic' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"
