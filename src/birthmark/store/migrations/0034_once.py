"""Requests that are carried out once, and what was answered."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "people_once",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("digest", "who", "asked")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("began_at", "ends_at")),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("people_once_who", "people_once", ["who"], unique=False)
    op.create_index("people_once_ends", "people_once", ["ends_at"], unique=False)
