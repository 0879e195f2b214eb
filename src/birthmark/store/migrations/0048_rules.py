"""Topic rules of AWS IoT, where they send, streams, and what waits to leave."""

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None


def _table(
    name: str,
    key: str,
    texts: tuple[str, ...],
    numbers: tuple[str, ...],
    *,
    none: tuple[str, ...] = (),
    blobs: tuple[str, ...] = (),
) -> None:
    op.create_table(
        name,
        sa.Column(key, sa.Text(), nullable=False),
        *(sa.Column(one, sa.Text(), nullable=False) for one in texts),
        *(sa.Column(one, sa.BigInteger(), nullable=one in none) for one in numbers),
        *(sa.Column(one, sa.LargeBinary(), nullable=False) for one in blobs),
        sa.PrimaryKeyConstraint(key),
    )


def upgrade() -> None:
    _table("aws_topic_rules", "name", ("payload",), ("is_disabled", "created_at", "modified_at", "revision"))
    _table("aws_rule_destinations", "id", ("url", "status", "reason", "token"), ("created_at", "modified_at"))
    _table("aws_streams", "name", (), ("created_at",))
    _table(
        "routing_letters",
        "id",
        ("lane", "kind", "address", "origin", "problem"),
        ("created_at", "tries", "due_at", "dead_at"),
        none=("dead_at",),
        blobs=("body",),
    )
    op.create_index("routing_letters_lane", "routing_letters", ["lane", "id"], unique=False)
    alive = sa.text("dead_at IS NULL")
    op.create_index(
        "routing_letters_due", "routing_letters", ["due_at"], unique=False, sqlite_where=alive, postgresql_where=alive
    )
