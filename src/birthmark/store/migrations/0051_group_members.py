"""Thing groups: since when a thing is a member, so that a continuous job knows who joined again."""

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "aws_thing_group_members", sa.Column("joined_at", sa.BigInteger(), nullable=False, server_default="0")
    )
