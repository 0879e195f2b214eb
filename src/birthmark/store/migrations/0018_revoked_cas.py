"""CAs that were taken back are found by their subject; those of before are few, and looked at beside."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_revoked_cas", sa.Column("subject_digest", sa.Text(), nullable=True))
    op.create_index("ca_revoked_cas_subject", "ca_revoked_cas", ["subject_digest"])
