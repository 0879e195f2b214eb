"""Retained messages whose time is over are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    which = sa.text("expires_at IS NOT NULL")
    op.create_index("retained_expires_at", "retained", ["expires_at"], sqlite_where=which, postgresql_where=which)
