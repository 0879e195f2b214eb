"""What is noticed and is in no audit trail: who came and went, and who was refused."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("chain", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("seq", "at")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("action", "subject", "detail")),
        sa.PrimaryKeyConstraint("chain", "seq"),
    )
    op.create_index("notices_at", "notices", ["at"], unique=False)
    op.create_table(
        "noticed",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
    )
