"""Jobs of AWS IoT: what they are for, how far they are on each thing, and what devices were told."""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None


def _table(
    name: str, keys: tuple[str, ...], texts: tuple[str, ...], numbers: tuple[str, ...], none: tuple[str, ...]
) -> None:
    op.create_table(
        name,
        *(sa.Column(one, sa.Text(), nullable=False) for one in keys),
        *(sa.Column(one, sa.Text(), nullable=one in none) for one in texts),
        *(sa.Column(one, sa.BigInteger(), nullable=one in none) for one in numbers),
        sa.PrimaryKeyConstraint(*keys),
    )


def upgrade() -> None:
    _table(
        "aws_jobs",
        ("job_id",),
        ("document", "description", "settings", "template", "status", "reason_code", "comment"),
        ("continuous", "forced", "created_at", "updated_at", "completed_at", "rolled", "rolled_at", "revision"),
        ("description", "template", "reason_code", "comment", "completed_at"),
    )
    op.create_index("aws_jobs_status", "aws_jobs", ["status", "job_id"], unique=False)
    _table("aws_job_targets", ("job_id", "target"), ("reached",), ("done",), ())
    _table(
        "aws_job_executions",
        ("job_id", "thing"),
        ("status", "details"),
        (
            *("number", "version", "forced", "queued_at", "started_at"),
            *("updated_at", "ends_at", "step_ends_at", "due_at"),
        ),
        ("started_at", "ends_at", "step_ends_at", "due_at"),
    )
    op.create_index("aws_job_executions_status", "aws_job_executions", ["job_id", "status", "thing"], unique=False)
    by_turn = ["thing", "status", "queued_at", "job_id"]
    op.create_index("aws_job_executions_thing", "aws_job_executions", by_turn, unique=False)
    _table("aws_job_templates", ("template_id",), ("description", "document", "settings"), ("created_at",), ())
    _table("aws_job_notices", ("thing",), ("listed", "next"), ("owed_at", "revision"), ("owed_at",))
    for name, table, column in (
        ("aws_job_executions_due", "aws_job_executions", "due_at"),
        ("aws_job_notices_owed", "aws_job_notices", "owed_at"),
    ):
        where = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, table, [column], unique=False, sqlite_where=where, postgresql_where=where)
