"""Certificates that devices are issued as they register, and by their hub."""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dps_registrations", sa.Column("issued_key", sa.LargeBinary(), nullable=True))
    op.add_column("dps_registrations", sa.Column("issued_by", sa.Text(), nullable=True))
    op.add_column("dps_registrations", sa.Column("issued_at", sa.BigInteger(), nullable=True))
    op.add_column("dps_registrations", sa.Column("issued_chain", sa.Text(), nullable=True))
    op.create_table(
        "hub_credentials",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "device_id", "generation_id", "version")),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("thumbprint", sa.LargeBinary(), nullable=True),
        sa.Column("key_digest", sa.LargeBinary(), nullable=True),
        sa.Column("issued_at", sa.BigInteger(), nullable=True),
        sa.Column("chain", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("hub", "device_id"),
    )
