"""What a signed head tells of the ends of other chains; nothing in those that earlier versions signed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_heads", sa.Column("others", sa.Text(), nullable=True))
