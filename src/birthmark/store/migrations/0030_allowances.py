"""How many devices a person may still take away today."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "people_allowances",
        sa.Column("user_name", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("remaining", "until")),
        sa.PrimaryKeyConstraint("user_name"),
    )
