"""Write migrations/0001_initial.py from the tables as they are (until the first release there is only this one).

python tools/make_migration.py
"""

import importlib
from pathlib import Path

import sqlalchemy
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext

from birthmark.store.schema import metadata

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

for module in sorted(HERE.glob("*/store.py")) + sorted(HERE.glob("*/store/__init__.py")):
    importlib.import_module(
        ".".join(["birthmark", *module.relative_to(HERE).with_suffix("").parts]).removesuffix(".__init__")
    )

engine = sqlalchemy.create_engine("sqlite://")
with engine.connect() as connection:
    context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
    migrations = produce_migrations(context, metadata)
    body = render_python_code(migrations.upgrade_ops, migration_context=context)
lines = [line for line in body.splitlines() if "###" not in line and line.strip()]
code = "\n".join("    " + line.strip("\n") if not line.startswith("    ") else line for line in lines)
target = HERE / "store" / "migrations" / "0001_initial.py"
target.write_text(HEAD + code + "\n")
