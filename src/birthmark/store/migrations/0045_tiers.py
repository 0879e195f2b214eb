"""Tiers of hubs and of provisioning services, whose limits count where there is one."""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("hubs", "dps_instances"):
        op.add_column(table, sa.Column("tier", sa.Text(), nullable=True))
