"""Alerts, silences, and which worker judges."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "alerts",
        *_text("rule", "subject", "severity", "detail"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        *_text("examples"),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("raised_at", "missed_at")),
        sa.Column("is_told", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject"),
    )
    op.create_table(
        "alert_silences",
        *_text("rule", "subject"),
        sa.Column("until", sa.BigInteger(), nullable=False),
        *_text("by", "reason"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rule", "subject"),
    )
    op.create_table(
        "alert_judges",
        *_text("name", "owner"),
        sa.Column("owned_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
