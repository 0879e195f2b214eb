"""Jobs of AWS IoT: where a document was read, its parameters, and since when a job is paused."""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("aws_jobs", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("aws_jobs", sa.Column("parameters", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("aws_jobs", sa.Column("paused_at", sa.BigInteger(), nullable=True))
    op.add_column("aws_job_templates", sa.Column("source", sa.Text(), nullable=True))
