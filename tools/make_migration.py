"""Write migrations/0001_initial.py from the tables as they are (until the first release there is only this one).

python tools/make_migration.py
"""

from pathlib import Path

import sqlalchemy
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext

from birthmark.server.tables import TABLES

HERE = Path(__file__).parent.parent / "src" / "birthmark"
HEAD = '''"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
'''

METADATA = next(iter(TABLES.values())).metadata
engine = sqlalchemy.create_engine("sqlite://")
with engine.connect() as connection:
    context = MigrationContext.configure(connection, opts={"target_metadata": METADATA})
    migrations = produce_migrations(context, METADATA)
    body = render_python_code(migrations.upgrade_ops, migration_context=context)
lines = [line for line in body.splitlines() if "###" not in line and line.strip()]
code = "\n".join("    " + line.strip("\n") if not line.startswith("    ") else line for line in lines)
target = HERE / "store" / "migrations" / "0001_initial.py"
target.write_text(HEAD + code + "\n")
