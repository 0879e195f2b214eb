"""Which making of its group a registration belongs to; the CAs that were taken back, whoever certified them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dps_registrations", sa.Column("group_made", sa.Text(), nullable=True))
    op.create_table(
        "ca_revoked_cas",
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_digest"),
    )
