"""Exchanging the root: how far it has come, and who was handed both roots."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ca_rollovers",
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("old", "new")),
        sa.Column("phase", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("started_at", "changed_at", "version")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "ca_anchors_fetched",
        sa.Column("new", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("new", "name"),
    )
