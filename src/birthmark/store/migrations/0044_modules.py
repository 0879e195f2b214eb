"""Modules of devices at hubs, the gateways that devices are behind, CA certificates that vouch for devices."""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None


def upgrade() -> None:
    key = ("hub", "device_id", "module_id")
    op.create_table(
        "hub_modules",
        *(sa.Column(name, sa.Text(), nullable=False) for name in key),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("generation_id", "etag", "auth_type", "managed_by")),
        *(sa.Column(f"{place}_thumbprint", sa.Text(), nullable=True) for place in ("primary", "secondary")),
        *(sa.Column(f"{place}_key", sa.LargeBinary(), nullable=True) for place in ("primary", "secondary")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "updated_at")),
        sa.PrimaryKeyConstraint(*key),
    )
    op.add_column("hub_devices", sa.Column("parent_scopes", sa.Text(), nullable=True))
    op.create_table(
        "hub_authorities",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "name", "subject_digest", "etag")),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("verification_code", sa.Text(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("verified", "created_at", "updated_at")),
        sa.PrimaryKeyConstraint("hub", "name"),
    )
    op.create_index("hub_authorities_subject", "hub_authorities", ["hub", "subject_digest"])
