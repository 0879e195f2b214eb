"""Provisioning templates, certificates that are not used yet, claim certificates, and bulk registrations."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "aws_owned_certificates",
        *(_text(name) for name in ("certificate_id", "digest", "principal", "client_id")),
        _number("until"),
        sa.PrimaryKeyConstraint("certificate_id"),
    )
    op.create_index("aws_owned_certificates_digest", "aws_owned_certificates", ["digest"], unique=True)
    op.create_index("aws_owned_certificates_principal", "aws_owned_certificates", ["principal", "until"], unique=False)
    op.create_table(
        "aws_task_lines",
        _text("task_id"),
        _number("line"),
        _number("done"),
        _text("body"),
        sa.PrimaryKeyConstraint("task_id", "line"),
    )
    op.create_table(
        "aws_tasks",
        *(_text(name) for name in ("task_id", "body", "bucket", "key", "role_arn", "status", "message")),
        *(_number(name) for name in ("done", "total", "succeeded", "failed")),
        *(_text(name) for name in ("link", "actor")),
        *(_number(name) for name in ("created_at", "modified_at")),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("aws_tasks_status", "aws_tasks", ["status", "task_id"], unique=False)
    op.create_table(
        "aws_template_versions",
        _text("template"),
        _number("version"),
        _text("body"),
        _number("created_at"),
        sa.PrimaryKeyConstraint("template", "version"),
    )
    op.create_table(
        "aws_templates",
        *(_text(name) for name in ("name", "kind", "description")),
        _number("enabled"),
        _text("role_arn"),
        _text("hook", nullable=True),
        *(_number(name) for name in ("default_version", "last_version")),
        _text("generation_id"),
        *(_number(name) for name in ("created_at", "modified_at")),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("aws_certificates", _text("claim", nullable=True))
    op.add_column("aws_certificates", _number("until", nullable=True))
    goes = sa.text("until IS NOT NULL")
    op.create_index(
        "aws_certificates_until", "aws_certificates", ["until"], unique=False, sqlite_where=goes, postgresql_where=goes
    )
