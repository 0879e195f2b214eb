"""Thing groups of AWS IoT, and which things are in them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "aws_thing_groups",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "group_id", "properties")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "created_at")),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "aws_thing_group_members",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("thing_group", "thing")),
        sa.PrimaryKeyConstraint("thing_group", "thing"),
    )
    op.create_index("aws_thing_group_members_thing", "aws_thing_group_members", ["thing", "thing_group"])
