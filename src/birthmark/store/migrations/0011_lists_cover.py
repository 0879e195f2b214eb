"""A revocation list knows how many revocations it covers: what was revoked while it was made is on the next."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("revocations", "covers"):
        op.add_column("ca_crls", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE ca_crls SET covers = -1")  # of none that is there it is known: they are made anew
