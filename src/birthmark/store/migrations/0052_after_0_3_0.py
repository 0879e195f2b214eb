"""What this version changed: when a thing joined a group; names of revoked devices."""

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _group_members()
    _revoked_names()


def _group_members() -> None:
    """Thing groups: since when a thing is a member, so that a continuous job knows who joined again."""
    op.add_column(
        "aws_thing_group_members", sa.Column("joined_at", sa.BigInteger(), nullable=False, server_default="0")
    )


def _revoked_names() -> None:
    """Names that are revoked are found by an index of their own."""
    lost = sa.text("lost_at IS NOT NULL")
    op.create_index("ca_names_lost", "ca_names", ["name"], unique=False, sqlite_where=lost, postgresql_where=lost)
