"""When an approved request was fetched: for a while it is answered again, as an answer gets lost."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("est_requests", sa.Column("fetched_at", sa.BigInteger(), nullable=True))
    op.create_index("est_requests_decided_at", "est_requests", ["decided_at", "actor"])
    op.create_index("est_requests_fetched_at", "est_requests", ["fetched_at"])
