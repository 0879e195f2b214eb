"""The inventory is read as certificates end: all, of a profile, of an issuer, of what is revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    revoked = sa.text("revoked_at IS NOT NULL")
    table, ends = "ca_certificates", ["not_after", "thumbprint"]
    op.create_index("ca_certificates_end", table, ends)
    op.create_index("ca_certificates_profile_end", table, ["profile", *ends])
    op.create_index("ca_certificates_issuer_end", table, ["issuer", *ends])
    op.create_index("ca_certificates_revoked_end", table, ends, sqlite_where=revoked, postgresql_where=revoked)
