"""DPS registers by TPM: whose TPM proved itself, the key it got, and which storage root keys came before one has."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("endorsement_key", "storage_root_key", "authentication_key"):
        op.add_column("dps_registrations", sa.Column(name, sa.LargeBinary(), nullable=True))
    op.create_table(
        "dps_tpm_roots",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("scope", "registration_id", "storage_root_keys")),
        sa.PrimaryKeyConstraint("scope", "registration_id"),
    )
