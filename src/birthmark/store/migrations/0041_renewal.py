"""Certificates at AWS that follow others."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("aws_certificates", sa.Column("replaces", sa.Text(), nullable=True))
