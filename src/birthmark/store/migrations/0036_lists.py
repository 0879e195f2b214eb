"""What lists are read by: the audit by who, what and about whom, refusals by code, devices that are switched off."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("audit_subject", table_name="audit")
    op.create_index("audit_at", "audit", ["at"], unique=False)
    for name in ("actor", "action", "subject"):
        op.create_index(f"audit_{name}", "audit", [name, "at"], unique=False)
    op.create_index("refusals_code", "refusals", ["code", "at"], unique=False)
    op.create_index("refusal_subjects_about", "refusal_subjects", ["subject", "at"], unique=False)
    off = sa.text("enabled = 0")
    op.create_index(
        "hub_devices_off",
        "hub_devices",
        ["hub", "device_id"],
        unique=False,
        sqlite_where=off,
        postgresql_where=off,
    )
