"""AWS IoT's device shadows; one that was deleted stays for its version."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aws_shadows",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("thing", "name")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "at", "revision")),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("thing", "name"),
    )
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index(
        "aws_shadows_deleted_at", "aws_shadows", ["deleted_at"], sqlite_where=deleted, postgresql_where=deleted
    )
