"""What other workers could not tell one, and what it has read since; when a session was seen; where streams end."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("missed", "heard"):
        op.add_column("workers", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "stream_ends",
        sa.Column("stream", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("seq", "at", "upto")),
        sa.PrimaryKeyConstraint("stream"),
    )
    op.add_column("sessions", sa.Column("seen_at", sa.BigInteger(), nullable=True))
    op.add_column("sessions", sa.Column("gone", sa.Text(), nullable=True))
