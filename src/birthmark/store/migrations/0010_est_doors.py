"""EST: tokens, registration authorities, requests that wait; the certificate by which one was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("est_users", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("est_users", sa.Column("is_one_time", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("est_users", sa.Column("used_by", sa.LargeBinary(), nullable=True))
    op.add_column("ca_certificates", sa.Column("parent", sa.LargeBinary(), nullable=True))
    op.create_table(
        "est_authorities",
        sa.Column("thumbprint", sa.LargeBinary(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("thumbprint"),
    )
    op.create_table(
        "est_requests",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "name", "actor", "profile", "address")),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.Column("is_approved", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("est_requests_name", "est_requests", ["name"], unique=False)
    op.create_index("est_requests_asked_at", "est_requests", ["asked_at"], unique=False)
