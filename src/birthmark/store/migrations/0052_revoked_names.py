"""Names that are revoked are found by an index of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lost = sa.text("lost_at IS NOT NULL")
    op.create_index("ca_names_lost", "ca_names", ["name"], unique=False, sqlite_where=lost, postgresql_where=lost)
