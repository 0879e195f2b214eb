"""The inventory notes which certificates registered: that tells a device's own from the identity that asks for it."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_certificates", sa.Column("registered_at", sa.BigInteger(), nullable=True))
