"""The certificate authority's inventory and revocation lists."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ca_certificates",
        sa.Column("thumbprint", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.LargeBinary(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.Column("revocation_reason", sa.Text()),
        sa.PrimaryKeyConstraint("thumbprint"),
    )
    op.create_index("ca_certificates_serial", "ca_certificates", ["issuer", "serial"], unique=True)
    op.create_index("ca_certificates_device", "ca_certificates", ["device_id"], unique=False)
    op.create_index("ca_certificates_key", "ca_certificates", ["key_digest"], unique=False)
    op.create_index("ca_certificates_revoked", "ca_certificates", ["issuer", "revoked_at"], unique=False)
    op.create_table(
        "ca_crls",
        sa.Column("issuer", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("next_update", sa.BigInteger(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("issuer"),
    )
