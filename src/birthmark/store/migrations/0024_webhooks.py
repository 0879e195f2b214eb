"""Webhooks: receivers and how far each is, and what was put aside."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhooks",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "url", "types", "secret", "former")),
        sa.Column("places", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "is_paused", "tries", "next_at")),
        sa.Column("failed_since", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("problem", "owner")),
        sa.Column("owned_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "webhook_dead",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "hook")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("at", "count")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhook_dead_hook", "webhook_dead", ["hook", "at"], unique=False)
