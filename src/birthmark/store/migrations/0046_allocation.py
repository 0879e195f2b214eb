"""What the program that chooses a device's hub has for it."""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dps_registrations", sa.Column("payload", sa.Text(), nullable=True))
