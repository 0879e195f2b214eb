"""Who holds a name and a key, who made a registration and a device, signed heads of the audit chain."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_certificates", sa.Column("name", sa.Text(), server_default="", nullable=False))
    op.add_column("ca_certificates", sa.Column("holds_name", sa.BigInteger(), server_default="1", nullable=False))
    op.execute(f"UPDATE ca_certificates SET name = {_folded('device_id')}")  # noqa: S608 - a column of ours
    op.create_index("ca_certificates_name", "ca_certificates", ["name", "not_after"], unique=False)
    op.create_table(
        "ca_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "ca_keys",
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("revocation_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key_digest"),
    )
    op.create_index("ca_keys_name", "ca_keys", ["name"], unique=False)
    # Of a key that two names have (an earlier version let both in when they asked at once) the first name stays.
    op.execute(
        "INSERT INTO ca_keys (key_digest, name, revoked_at, revocation_reason)"
        " SELECT key_digest, MIN(name), MAX(CASE WHEN revocation_reason = 'superseded' THEN NULL ELSE revoked_at END),"
        " MAX(CASE WHEN revocation_reason = 'superseded' THEN NULL ELSE revocation_reason END)"
        " FROM ca_certificates GROUP BY key_digest"
    )
    op.add_column("est_users", sa.Column("nonce", sa.LargeBinary(), nullable=True))
    op.add_column("dps_registrations", sa.Column("common_name", sa.Text(), nullable=True))
    op.add_column("hub_devices", sa.Column("maker", sa.Text(), server_default="operator", nullable=False))
    op.execute(
        "UPDATE hub_devices SET maker = COALESCE((SELECT 'dps:' || r.scope || '/' || r.registration_id"
        " FROM dps_registrations r JOIN hubs h ON lower(h.host) = lower(r.hub)"
        " WHERE h.name = hub_devices.hub AND r.device_id = hub_devices.device_id"
        " ORDER BY r.updated_at DESC LIMIT 1), 'operator')"
    )
    op.create_table(
        "audit_heads",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
    )
    op.create_table(
        "server_facts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _folded(column: str) -> str:
    """ASCII letters in lower case on both engines: lower() knows only them on SQLite, and more on PostgreSQL."""
    if op.get_context().dialect.name == "sqlite":
        return f"lower({column})"
    return f"translate({column}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')"
