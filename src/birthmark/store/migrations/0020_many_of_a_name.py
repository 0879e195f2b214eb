"""What is alive of a name, in use or taken back, what asked for what, and a serial number, are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = "ca_certificates"
    for stale in ("serial", "device", "key"):
        op.drop_index(f"ca_certificates_{stale}", table)
    op.drop_index("ca_keys_name", "ca_keys")
    op.create_index("ca_keys_name", "ca_keys", ["name", "revoked_at"])
    op.create_index("ca_certificates_serial", table, ["serial", "issuer"], unique=True)
    op.create_index("ca_certificates_key", table, ["key_digest", "revoked_at", "not_after"])
    op.create_index("ca_certificates_parent", table, ["parent", "name", "revoked_at", "not_after"])
    for name, columns, condition in (
        ("live", ["name", "not_after", "thumbprint", "profile"], "revoked_at IS NULL"),
        ("taken_back", ["name", "revoked_at", "revocation_reason"], "revoked_at IS NOT NULL"),
        ("registered", ["parent", "name", "not_after"], "registered_at IS NOT NULL"),
    ):
        which = sa.text(condition)
        op.create_index(f"ca_certificates_{name}", table, columns, sqlite_where=which, postgresql_where=which)
