"""A name that was taken back with its device: nobody gets a certificate for it until an operator lets it go.

And the names of a refusal are found by it, so that they leave together.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ca_names", sa.Column("lost_at", sa.BigInteger(), nullable=True))
    op.create_index("refusal_subjects_refusal", "refusal_subjects", ["refusal"])
